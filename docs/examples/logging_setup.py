"""Where the events go: through structlog where the service uses it, else through the standard library."""

import logging

import structlog


def with_structlog() -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )


def with_the_standard_library() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("authz403")
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)  # logging.DEBUG shows what was allowed, too
