// The code interpreter through the package its users have, @e2b/code-interpreter.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Sandbox } from '@e2b/code-interpreter';
import { startSandbox } from './machine.mjs';

let machine;
let sandbox;
before(async () => {
  machine = await startSandbox(Sandbox);
  sandbox = machine.sandbox;
});
after(() => machine.stop());

test('clones of one template draw different numbers', async () => {
  const code = 'import random, numpy, tempfile, uuid, platform, os\nassert platform.node() == os.uname().nodename\n' +
      '[random.random(), numpy.random.rand(), tempfile.mktemp(), str(uuid.uuid4())]';
  const [mine, others] = await Promise.all([machine, startSandbox(Sandbox)].map(async (each) => {
    const { sandbox: one, stop } = await each;
    const contexts = await one.listCodeContexts();
    const { text } = await one.runCode(code);
    if (one !== sandbox) await stop();
    return [...text.split(/,\s*/), contexts[0].id];
  }));
  assert.equal(mine.length, 5);
  mine.forEach((drawn, index) => assert.notEqual(drawn, others[index]));
});

test('a cell, and state from one to the next', async () => {
  const first = await sandbox.runCode('print("héllo")\nx = 20');
  assert.deepEqual(first.logs, { stdout: ['héllo\n'], stderr: [] });
  assert.equal(first.error, undefined);
  const second = await sandbox.runCode('x + 1');
  assert.equal(second.text, '21');
  assert.equal(second.executionCount, first.executionCount + 1);
});

test('output arrives while the cell runs', async () => {
  const seen = [];
  let release;
  const first = new Promise((resolve) => { release = resolve; });
  const run = () => sandbox.runCode(
      'import os, sys\nprint("one")\nprint("two", file=sys.stderr)\n' +
      'while not os.path.exists("/tmp/go"): pass\nprint("three")',
      { onStdout: (out) => { seen.push(out.line); release(); }, onStderr: (out) => { seen.push(out.line); } });
  const goOn = async () => {
    await first;
    assert.deepEqual(seen.includes('one\n'), true);
    await sandbox.runCode('touch /tmp/go', { language: 'bash' });
  };
  const [execution] = await Promise.all([run(), goOn()]);
  assert.deepEqual(execution.logs.stdout.join(''), 'one\nthree\n');
  assert.deepEqual(execution.logs.stderr.join(''), 'two\n');
});

test('errors have a name, a value and a traceback', async () => {
  let called;
  const { error } = await sandbox.runCode('def f():\n  return {}["key"]\nf()',
                                          { onError: (each) => { called = each; } });
  assert.equal(error.name, 'KeyError');
  assert.equal(error.value, "'key'");
  assert.match(error.traceback, /KeyError/);
  assert.deepEqual(called, error);
  assert.equal((await sandbox.runCode('1')).text, '1');
});

test('a data frame', async () => {
  const { results } = await sandbox.runCode('import pandas as pd\npd.DataFrame({"a": [1, 2], "b": ["x", None]})');
  assert.deepEqual(results[0].data, { a: [1, 2], b: ['x', null] });
  assert.match(results[0].html, /<table/);
  assert.equal(results[0].isMainResult, true);
});

test('a chart and its picture', async () => {
  const told = [];
  const { results } = await sandbox.runCode(
      'import matplotlib.pyplot as plt\nplt.bar(["x", "y"], [1, 2], label="g")\nplt.title("T")\nplt.show()',
      { onResult: (result) => { told.push(result); } });
  assert.equal(results.length, 1);
  assert.deepEqual(told.map(({ png }) => png), [results[0].png]);
  assert.equal(Buffer.from(results[0].png, 'base64').subarray(1, 4).toString(), 'PNG');
  assert.equal(results[0].chart.type, 'bar');
  assert.equal(results[0].chart.title, 'T');
  assert.deepEqual(results[0].chart.elements, [
    { label: 'x', group: 'g', value: 1 }, { label: 'y', group: 'g', value: 2 }]);
});

test('variables for one execution', async () => {
  const code = 'import os; os.environ.get("MINE")';
  assert.equal((await sandbox.runCode(code, { envs: { MINE: 'yes' } })).text, 'yes');
  assert.equal((await sandbox.runCode(code)).text, undefined);
});

test('contexts', async () => {
  const context = await sandbox.createCodeContext({ cwd: '/tmp' });
  assert.deepEqual([context.language, context.cwd], ['python', '/tmp']);
  await sandbox.runCode('y = 1', { context });
  assert.equal((await sandbox.runCode('import os; y, os.getcwd()', { context })).text, "(1, '/tmp')");
  assert.equal((await sandbox.runCode('y')).error.name, 'NameError');
  const listed = await sandbox.listCodeContexts();
  assert.ok(listed.some(({ id }) => id === context.id));
  await sandbox.restartCodeContext(context);
  assert.equal((await sandbox.runCode('y', { context })).error.name, 'NameError');
  await sandbox.removeCodeContext(context.id);
  await assert.rejects(sandbox.runCode('1', { context }), { name: 'NotFoundError', message: /not found/ });
  await assert.rejects(sandbox.removeCodeContext(context), { name: 'NotFoundError' });
  await assert.rejects(sandbox.createCodeContext({ language: 'cobol' }), { name: 'SandboxError' });
  for (const [language, code] of [['bash', 'echo $((x = 5))'], ['javascript', 'console.log(5)']]) {
    const other = await sandbox.createCodeContext({ language });
    assert.equal((await sandbox.runCode(code, { context: other })).logs.stdout.join(''), '5\n');
    await sandbox.restartCodeContext(other.id);
    await sandbox.removeCodeContext(other);
  }
});

test('a client that gives up interrupts its cell', async () => {
  await assert.rejects(sandbox.runCode('z = "kept"\nwhile True: pass', { timeoutMs: 1500 }),
                       { name: 'TimeoutError' });
  assert.equal((await sandbox.runCode('z')).text, 'kept');
});

test('JavaScript, TypeScript and Bash', async () => {
  await sandbox.runCode('const a = 1;', { language: 'js' });
  const js = await sandbox.runCode('console.log(a); const b = await Promise.resolve(a + 1); b', { language: 'javascript' });
  assert.deepEqual([js.logs.stdout.join(''), js.text], ['1\n', '2']);
  assert.equal((await sandbox.runCode('const n: number = 4; n', { language: 'typescript' })).text, '4');
  const bash = await sandbox.runCode('cd /tmp; v=1', { language: 'bash' });
  assert.equal(bash.error, undefined);
  assert.equal((await sandbox.runCode('pwd; echo $v', { language: 'bash' })).logs.stdout.join(''), '/tmp\n1\n');
  assert.equal((await sandbox.runCode('(exit 3)', { language: 'bash' })).error.name, 'ExitStatus');
});

test('much output', async () => {
  const { logs } = await sandbox.runCode('for i in range(20000): print("x" * 99)');
  assert.equal(logs.stdout.join('').length, 2_000_000);
});

test('a context that cannot be started is not listed', async () => {
  const before = (await sandbox.listCodeContexts()).map(({ id }) => id);
  const bash = async (code) => assert.equal((await sandbox.runCode(code, { language: 'bash' })).error, undefined);
  await bash('sudo mv /usr/bin/node /usr/bin/node.away && sudo ln -s /bin/false /usr/bin/node');
  await assert.rejects(sandbox.createCodeContext({ language: 'javascript' }), { name: 'SandboxError', message: /500/ });
  assert.deepEqual((await sandbox.listCodeContexts()).map(({ id }) => id), before);
  await bash('sudo mv /usr/bin/node.away /usr/bin/node');
  await sandbox.removeCodeContext(await sandbox.createCodeContext({ language: 'javascript' }));
});

test('an interpreter that dies', async () => {
  const { error } = await sandbox.runCode('import os; os.kill(os.getpid(), 9)');
  assert.equal(error.name, 'ContextEnded');
  assert.equal((await sandbox.runCode('1 + 1')).text, '2');
});
