"use strict";
/* The search of features: what is asked for becomes the page's address. */
for (const form of document.querySelectorAll('form[data-role="features"]')) {
  const go = () => {
    const asked = [...new FormData(form)].filter(([, value]) => value !== "");
    announce("Searching.");
    location.assign(`${location.pathname}?${new URLSearchParams(asked)}`);
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go();
  });
  for (const select of form.querySelectorAll("select")) select.addEventListener("change", go);
}
