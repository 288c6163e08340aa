// The identity provider of the tests: OpenID-certified, real keys, JWT access tokens (RFC 9068) by client credentials.
//
//   ALG=ES256 node provider.mjs [port]     prints "READY <issuer>" once it answers; port 0 or none: a free one
//
// Besides what oidc-provider serves:
//   POST /__rotate   from now on a new key signs; the one before stays published until the next rotation
//   POST /__retire   only the key that signs stays published
//   GET  /__counts   how often metadata and key set were asked for: {"metadata": 0, "keys": 0}

import { createServer } from 'node:http';
import { webcrypto } from 'node:crypto';

// What Node.js 18, the one of Debian 12, does not have yet.
globalThis.crypto ??= webcrypto;
URL.parse ??= (url, base) => (URL.canParse(url, base) ? new URL(url, base) : null);

const { calculateJwkThumbprint, exportJWK, generateKeyPair } = await import('jose');
const { default: Provider, errors } = await import('oidc-provider');

const ALGORITHM = process.env.ALG ?? 'ES256';
const PORT = Number(process.argv[2] ?? 0);
const SCOPES = ['items:read', 'items:write'];
const RESOURCES = ['https://items.example', 'https://invoices.example'];
const ONE_WEEK = 7 * 24 * 3600; // seconds; tests move their clock by a day and more

const METADATA = /^\/\.well-known\//;
const KEYS = '/jwks';

async function newKey() {
  const { privateKey } = await generateKeyPair(ALGORITHM, { extractable: true });
  const jwk = await exportJWK(privateKey);
  return { ...jwk, alg: ALGORITHM, use: 'sig', kid: await calculateJwkThumbprint(jwk) };
}

// The keys of a Provider are fixed when it is made, so that other keys mean another Provider.
function provide(issuer, keys) {
  const provider = new Provider(issuer, {
    jwks: { keys },
    routes: { jwks: KEYS },
    scopes: SCOPES,
    clients: [
      {
        client_id: 'shop',
        client_secret: 'the-secret-of-the-shop-0123456789',
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
      },
    ],
    clientDefaults: { id_token_signed_response_alg: ALGORITHM },
    extraTokenClaims: () => ({ roles: ['seller'], tenant: 't-1', shop: { region: 'eu', tags: ['new'] } }),
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => RESOURCES[0],
        getResourceServerInfo: (_ctx, resource) => {
          if (!RESOURCES.includes(resource)) throw new errors.InvalidTarget();
          return {
            audience: resource,
            scope: SCOPES.join(' '),
            accessTokenFormat: 'jwt',
            accessTokenTTL: ONE_WEEK,
            jwt: { sign: { alg: ALGORITHM } },
          };
        },
      },
    },
  });
  return provider.callback();
}

const counts = { metadata: 0, keys: 0 };
let issuer;
let keys = [await newKey()];
let answer;

function publish(these) {
  keys = these;
  answer = provide(issuer, keys);
}

const controls = {
  'POST /__rotate': async () => publish([await newKey(), keys[0]]),
  'POST /__retire': () => publish([keys[0]]),
  'GET /__counts': () => {},
};

const server = createServer(async (request, response) => {
  const control = controls[`${request.method} ${request.url}`];
  if (control) {
    await control();
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(counts));
    return;
  }
  if (METADATA.test(request.url)) counts.metadata += 1;
  if (request.url === KEYS) counts.keys += 1;
  answer(request, response);
});

server.listen(PORT, '127.0.0.1', () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  publish(keys);
  process.stdout.write(`READY ${issuer}\n`);
});
process.on('SIGTERM', () => process.exit(0));
