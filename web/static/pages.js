// Says when the pages that refresh themselves get no answer. Everything else works without scripts of our own.
const offline = document.getElementById("offline");

for (const name of ["htmx:sendError", "htmx:timeout", "htmx:responseError"]) {
  document.addEventListener(name, () => {
    offline.hidden = false;
  });
}
document.addEventListener("htmx:beforeOnLoad", (event) => {
  if (event.detail.xhr.status < 400) offline.hidden = true;
});
