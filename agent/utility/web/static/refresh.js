// Loads the page again now and then, and puts its content in the place of the old one. Without script the page is whole.
"use strict";
const everyS = Number(document.body.dataset.refreshS);
if (everyS > 0) {
  setInterval(async () => {
    const main = document.querySelector("main");
    // Not under somebody's hands, and not for a page that nobody sees.
    if (document.hidden || (document.activeElement !== document.body && main.contains(document.activeElement))) return;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
      if (fresh) main.replaceChildren(...fresh.childNodes);
    } catch {
      // The network is away: the page stays as it is, with its time below it.
    }
  }, everyS * 1000);
}
