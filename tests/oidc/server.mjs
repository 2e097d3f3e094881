// An identity provider made with the certified package `oidc-provider`: one client, users that log in by their name.
// Environment: PORT, REDIRECT_URI, CLIENT_SECRET.
import { Provider } from 'oidc-provider';

const port = Number(process.env.PORT);
const issuer = `http://127.0.0.1:${port}`;

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: 'holt',
      client_secret: process.env.CLIENT_SECRET,
      redirect_uris: [process.env.REDIRECT_URI],
      response_types: ['code'],
      grant_types: ['authorization_code'],
    },
  ],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  // The address is only at the userinfo endpoint then: half of the users are told apart by that.
  conformIdTokenClaims: process.env.CONFORM === 'true',
  pkce: { required: () => true },
  features: { devInteractions: { enabled: true } },
  cookies: { keys: ['only for tests'] },
  async findAccount(_ctx, id) {
    return {
      accountId: id,
      async claims() {
        return { sub: id, name: id, email: `${id}@example.org`, email_verified: id !== 'unverified' };
      },
    };
  },
});
provider.listen(port, '127.0.0.1');
