// Nothing in the picture overlaps, however many peers there are and however long their names. The value is a list of
// failures.
(async () => {
  const { Picture } = await import("/picture.js");
  const failures = [];
  const root = document.getElementById("picture");
  const picture = new Picture(root);
  const names = {
    short: (i) => `p${i}`,
    wide: (i) => `${i}`.padEnd(128, "W"),
    narrow: (i) => "i".repeat(120) + i,
    common: (i) => `production-eu-west-agent-${"x".repeat(90)}-${i}`,
    pictures: (i) => "😀".repeat(32) + i,
    ideographs: (i) => "語".repeat(42) + i,
  };
  const box = (e) => {
    const { x, y, width, height } = e.getBBox();
    return { left: x, right: x + width, top: y, bottom: y + height, what: `${e.tagName} ${e.textContent.slice(0, 20)}` };
  };
  const overlap = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 0.5 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 0.5;
  // crosses reports whether a link runs through a box.
  const crosses = ([p, q], b) => {
    for (let i = 0; i <= 200; i++) {
      const [x, y] = [p.x + ((q.x - p.x) * i) / 200, p.y + ((q.y - p.y) * i) / 200];
      if (b.left < x && x < b.right && b.top < y && y < b.bottom) return true;
    }
  };

  for (const [kind, name] of Object.entries(names)) {
    for (const n of [0, 1, 2, 3, 4, 5, 7, 11, 16, 25, 39, 40, 100]) {
      const peers = Array.from({ length: n }, (_, i) => name(i));
      const drawn = picture.draw(name(n), peers);
      const fail = (text) => failures.push(`${n} ${kind} names: ${text}`);
      if (drawn !== n) fail(`${drawn} are drawn`);
      const { width, height } = root.viewBox.baseVal;
      const texts = [...root.querySelectorAll("text")];
      const boxes = [...texts, ...root.querySelectorAll("circle")].map(box);
      if (texts.length !== n + 1) fail(`${texts.length} labels`);
      for (const [i, a] of boxes.entries()) {
        if (a.left < -0.5 || a.top < -0.5 || a.right > width + 0.5 || a.bottom > height + 0.5) fail(`${a.what} sticks out`);
        for (const b of boxes.slice(i + 1)) if (overlap(a, b)) fail(`${a.what} covers ${b.what}`);
      }
      const own = texts.length - 1; // it is drawn over the links, with an outline around its letters
      const links = [...root.querySelectorAll("line")].map((l) => [
        { x: l.x1.baseVal.value, y: l.y1.baseVal.value },
        { x: l.x2.baseVal.value, y: l.y2.baseVal.value },
      ]);
      for (const label of boxes.slice(0, own)) if (links.some((link) => crosses(link, label))) fail(`a link crosses ${label.what}`);
      for (const [i, text] of texts.entries()) {
        if (text.querySelector("title").textContent !== name(i)) fail(`label ${i} has no title with the name`);
        const shown = text.firstChild.data;
        if (shown !== name(i) && !/^.+….+$/u.test(shown)) fail(`label ${i} is ${shown}`);
        if (n <= 40 && kind !== "wide" && !shown.endsWith(name(i).slice(-1))) fail(`label ${i} has lost its end: ${shown}`);
      }
    }
  }
  const many = picture.draw("me", Array.from({ length: 201 }, (_, i) => `p${i}`));
  if (many !== 200) failures.push(`${many} of 201 are drawn`);
  return failures.slice(0, 20);
})();
