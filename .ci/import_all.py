"""Import every module of the installed package; only one that needs an extra may fail to, and only for that extra."""

import importlib
import pkgutil
import sys

import authz403

MUST = {"authz403.asgi", "authz403.client", "authz403.wsgi"}
EXTRAS = {"asgiref", "click", "django", "fastapi", "flask", "pytest", "uvicorn", "websockets"}

imported: set[str] = set()
failed: list[str] = []


def report(name: str, error: ImportError) -> None:
    """Say why a module was not imported; a missing extra is no failure."""
    if (error.name or "").partition(".")[0] in EXTRAS:
        print(f"{name}: needs the extra package {error.name}")
    else:
        failed.append(f"{name}: {error}")


def walk(package: str, paths: list[str]) -> None:
    """Import what lies in one package, and in the packages below it."""
    for module in pkgutil.iter_modules(paths, f"{package}."):
        if module.name.endswith(".__main__"):
            continue
        try:
            found = importlib.import_module(module.name)
        except ImportError as error:
            report(module.name, error)
        else:
            imported.add(module.name)
            if module.ispkg:
                walk(module.name, list(found.__path__))


walk("authz403", list(authz403.__path__))
failed.extend(f"{name}: not imported" for name in sorted(MUST - imported))
print(f"imported without extras: {', '.join(sorted(imported))}")
sys.exit("\n".join(failed) or 0)
