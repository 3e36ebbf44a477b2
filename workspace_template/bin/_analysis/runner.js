// Loads a service's file with a package's code from a folder, and calls its functions; what each did goes to standard output.
const Module = require('module'), path = require('path'), fs = require('fs'), vm = require('vm'), util = require('util');
const { pathToFileURL } = require('url');
const job = JSON.parse(fs.readFileSync(0, 'utf8')), write = process.stdout.write.bind(process.stdout);
process.stdout.write = () => true;
process.exit = () => { throw new Error('exit'); };
const stub = () => new Proxy(function () {}, {
  get: (t, k) => (k === 'then' ? undefined : k === Symbol.toPrimitive ? () => '' : k === 'prototype' ? t.prototype : stub()),
  apply: (t, s, given) => (given.length === 1 && typeof given[0] === 'function' ? given[0] : stub()),
  construct: () => stub(),
});
let lib;
const original = Module._load, stubs = [];
Module._load = function (request, parent, main) {
  if (request === job.package) return lib;
  if (request.startsWith(job.package + '/')) return original(path.join(job.lib, request.slice(job.package.length)), parent, main);
  try { return original(request, parent, main); } catch (error) {
    if (error.code !== 'MODULE_NOT_FOUND' || /^[./]/.test(request)) throw error;
    stubs.push(request); return stub();
  }
};
async function library() {
  for (const place of ['', 'index.js', 'lib/index.js', 'src/index.js']) {
    const full = path.join(job.lib, place);
    try { return original(full, null, false); } catch (error) {
      if (error.code === 'ERR_REQUIRE_ESM' || error instanceof SyntaxError) {
        const head = JSON.parse(fs.readFileSync(path.join(job.lib, 'package.json'), 'utf8'));
        const entry = place || head.main || (typeof head.exports === 'string' ? head.exports : (head.exports || {}).default) || 'index.js';
        try { return await import(pathToFileURL(path.join(job.lib, entry))); } catch { /* the next place */ }
      }
    }
  }
  throw new Error('the package does not load');
}
const plain = text => text
  .replace(/^import\s+(\w+)\s+from\s+(['"][^'"]+['"])/gm, 'const $1 = (m => m && m.default || m)(require($2))')
  .replace(/^import\s+\*\s+as\s+(\w+)\s+from\s+(['"][^'"]+['"])/gm, 'const $1 = require($2)')
  .replace(/^import\s+\{([^}]*)\}\s+from\s+(['"][^'"]+['"])/gm, (_, names, from) => `const {${names.replace(/\s+as\s+/g, ': ')}} = require(${from})`)
  .replace(/^export\s+default\s+(?!function|class)/gm, 'module.exports.default = ').replace(/^export\s+default\s+/gm, '')
  .replace(/^export\s*\{[^}]*\}.*$/gm, '').replace(/^export\s+/gm, '');
async function tried(call, given) {
  globalThis.__call = call; globalThis.__given = given;
  const began = performance.now();
  let raised = '', gave = '';
  try {
    let value = new vm.Script('__call(...__given)').runInThisContext({ timeout: job.each * 1000 });
    if (value && typeof value.then === 'function') value = await Promise.race([value, new Promise((_, no) => setTimeout(() => no(new Error('no answer')), 300))]);
    gave = util.inspect(value, { depth: 4, breakLength: Infinity }).slice(0, 160);
  } catch (error) { raised = error.code === 'ERR_SCRIPT_EXECUTION_TIMEOUT' ? 'TimeoutError: no answer' : `${error && error.name}: ${error && error.message}`.slice(0, 300); }
  return [raised, gave, (performance.now() - began) / 1000];
}
(async () => {
  let answer;
  try {
    lib = await library();
    const names = job.functions.map(one => one.name);
    const text = plain(fs.readFileSync(job.file, 'utf8')) + `\n;module.exports = {${names.map(n => `${n}: typeof ${n} === 'undefined' ? undefined : ${n}`)}};`;
    const service = new Module(job.file); service.filename = job.file; service.paths = Module._nodeModulePaths(path.dirname(job.file));
    service._compile(text, job.file);
    const told = {}, end = Date.now() + job.seconds * 1000;
    for (const one of job.functions) {
      told[one.name] = [];
      for (const given of one.calls) if (Date.now() < end && typeof service.exports[one.name] === 'function') told[one.name].push(await tried(service.exports[one.name], JSON.parse(JSON.stringify(given))));
    }
    answer = { told, stubs };
  } catch (error) { answer = { broken: String(error) }; }
  write('\n' + JSON.stringify(answer), () => process.kill(process.pid, 'SIGKILL'));
})();
