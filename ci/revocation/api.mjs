// Requests of an issuer and of clients to a replica of the demo.
import { send } from '../replicas/client.mjs';

/** The value of `Authorization` that the demo expects of a sender of events. */
export const AUTHORIZATION = 'Bearer secret-of-the-stream';

/** The code of a rejection, after its status. */
export const REVOKED = '401 revoked';
export const UNAVAILABLE = '503 revocations_unavailable';

/** The log of the revocations in Redis. */
export const LOG = 'portcullis-demo:log';

/** Calls `/private`. */
export const call = (replica, token) => send(replica.api, '/private', { authorization: `Bearer ${token}` });

const FORM = 'application/x-www-form-urlencoded';

/** Sends this body to the receiver of logout tokens. */
export const postLogout = (replica, body, { type = FORM, method = 'POST' } = {}) =>
  send(replica.api, '/backchannel-logout', { 'content-type': type }, { method, body });

/** Sends a logout token, as OpenID Connect Back-Channel Logout 1.0 §2.5 says. */
export const logOut = (replica, logoutToken) =>
  postLogout(replica, new URLSearchParams({ logout_token: logoutToken }).toString());

/** Pushes a security event (RFC 8935 §2.1). */
export const push = (replica, body, { type = 'application/secevent+jwt', authorization = AUTHORIZATION } = {}) => {
  const headers = { 'content-type': type, ...(authorization && { authorization }) };
  return send(replica.api, '/events', headers, { method: 'POST', body });
};
