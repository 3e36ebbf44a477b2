// Keeps the page of a running investigation up to date. The server renders every item; this only puts it in its place.
(() => {
  const article = document.getElementById("investigation");
  if (!article || !article.dataset.live || !window.EventSource) return;
  const source = new EventSource(article.dataset.live);

  const followsEnd = () => window.innerHeight + window.scrollY >= document.body.scrollHeight - 80;

  const show = (markup) => {
    const list = document.getElementById("items");
    const last = Number(list.lastElementChild?.dataset.seq ?? 0);
    const parsed = new DOMParser().parseFromString(`<ol>${markup}</ol>`, "text/html").querySelectorAll("li");
    const follow = followsEnd();
    for (const item of parsed) if (Number(item.dataset.seq) > last) list.append(document.adoptNode(item));
    if (list.children.length) document.getElementById("nothing")?.remove();
    if (follow) window.scrollTo({ top: document.body.scrollHeight });
  };

  // Takes the page anew from the server, without losing what is being typed.
  const reload = async () => {
    const answer = await fetch(location.pathname, { headers: { accept: "text/html" } });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("investigation");
    const typed = document.getElementById("text")?.value ?? "";
    const focused = document.activeElement?.id === "text";
    const open = [...article.querySelectorAll("details[open]")].map((one) => one.querySelector("summary")?.textContent);
    article.replaceChildren(...fresh.childNodes);
    for (const one of article.querySelectorAll("details")) if (open.includes(one.querySelector("summary")?.textContent)) one.open = true;
    const text = document.getElementById("text");
    if (text) { text.value = typed; if (focused) text.focus(); }
  };

  source.addEventListener("items", (event) => show(event.data));
  source.addEventListener("reload", reload);
  source.addEventListener("state", (event) => {
    const { status, why } = JSON.parse(event.data);
    const badge = document.getElementById("status");
    if (badge && !document.querySelector(".report")) { badge.textContent = status; badge.className = `state ${status}`; }
    document.getElementById("why").textContent = why;
  });
  source.addEventListener("end", () => { source.close(); reload(); });
  source.onopen = () => { document.getElementById("live")?.classList.remove("lost"); };
  source.onerror = () => { document.getElementById("live")?.classList.add("lost"); };
})();
