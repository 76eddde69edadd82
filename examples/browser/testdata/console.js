// What console.js keeps until it is taken. The value is a list of failures.
(async () => {
  const { attach } = await import("/console.js");
  const failures = [];
  const check = (name, got, want) => {
    if (got !== want) failures.push(`${name}: got ${got}, want ${want}`);
  };
  class FakeMesh extends EventTarget {
    handle() {}
    say(text) {
      this.dispatchEvent(new CustomEvent("peerconnected", { detail: { peer: text } }));
    }
  }
  const mesh = new FakeMesh();
  const { takeLines } = attach(mesh);

  for (let i = 0; i < 10_005; i++) mesh.say(String(i));
  const many = takeLines();
  check("lines", many.length, 10_000);
  check("the first of them", many[0], "+ 5");

  const megabyte = "x".repeat((1 << 20) - 6);
  for (let round = 0; round < 2; round++) {
    for (let i = 100; i < 250; i++) mesh.say(`${i} ${megabyte}`); // a mebicharacter each
    const long = takeLines();
    check("long lines", long.length, 32);
    check("the first of them", long[0].slice(0, 5), "+ 218");
    check("the last of them", long[31].slice(0, 5), "+ 249");
  }

  mesh.say("before");
  mesh.say("\u00e4".repeat(6 << 20)); // 36 Mi characters when escaped
  const [only, ...others] = takeLines();
  check("one line that is longer", only.length, 2 + (36 << 20));
  check("and no other", others.length, 0);
  mesh.say("after");
  mesh.say("it");
  check("after it", takeLines().join(), "+ after,+ it");
  return failures;
})();
