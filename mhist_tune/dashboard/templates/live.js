// Replaces the part of the page that is marked data-live with its newest version, while the page is visible.
"use strict";
const period = 2000;
let tag = null;

async function refresh() {
  const live = document.querySelector("[data-live]");
  if (!document.hidden) {
    try {
      const headers = {"X-Refresh": "1"};
      if (tag) headers["If-None-Match"] = tag;
      const answer = await fetch(location.pathname + location.search, {headers, cache: "no-store"});
      if (answer.status === 401) return location.reload();  // the session has ended: show the login page
      if (answer.status === 200) {
        tag = answer.headers.get("ETag");
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const update = page.querySelector("[data-live]");
        const offsets = [...live.querySelectorAll(".wide")].map((table) => table.scrollLeft);
        live.replaceChildren(...update.childNodes);
        live.querySelectorAll(".wide").forEach((table, index) => { table.scrollLeft = offsets[index] || 0; });
      }
      live.classList.toggle("stale", answer.status >= 400);
    } catch {
      live.classList.add("stale");
    }
  }
  setTimeout(refresh, period);
}

if (document.querySelector("[data-live]")) setTimeout(refresh, period);
