/** The form to publish with, and what became of what it sent. */

import { byId, call } from "./page.js";

function base64(text) {
  let binary = "";
  for (const byte of new TextEncoder().encode(text)) binary += String.fromCharCode(byte);
  return btoa(binary);
}

function tell(state, text) {
  const result = byId("publish-result");
  result.hidden = false;
  result.dataset.state = state;
  result.textContent = text;
}

/** Publish over *session* when the form is sent. */
export function servePublishing(session) {
  byId("publish-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const channel = byId("publish-channel").value.trim();
    // As bytes, so that what was typed is published as it was typed, and checked by the gateway and not by this page.
    const params = { channel, b64data: base64(byId("publish-data").value), skip_history: byId("publish-skip").checked };
    try {
      const { offset, epoch } = await call(session, "publish", params);
      const where = offset ? `, at offset ${offset} of epoch ${epoch}` : "";
      tell("good", `Published to ${channel}${where}.`);
    } catch (error) {
      tell("bad", `Not published: ${error.message}.`);
    }
  });
}
