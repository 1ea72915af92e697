// The API page: Swagger UI over the server's own document. Addresses are relative to the page, so that it works behind a path prefix.

/* global SwaggerUIBundle */

const here = new URL(".", location.href).href.replace(/\/$/, "");
const spec = await (await fetch("openapi.json", { credentials: "omit" })).json();

SwaggerUIBundle({
  // Requests go where the page came from: without this, to the root of the host.
  spec: { ...spec, servers: [{ url: here }] },
  dom_id: "#swagger-ui",
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
});
