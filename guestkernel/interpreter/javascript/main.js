// The JavaScript worker: `main.js CWD [typescript]` (see ../README.md). Cells are evaluated by V8's
// REPL mode, through an inspector session of the process with itself: const, let and class may be
// declared again, await works at the top, and the value of the last expression is the result.
'use strict';

const fs = require('fs');
const inspector = require('inspector');
const { createRequire } = require('module');
const path = require('path');
const { pathToFileURL } = require('url');
const util = require('util');
const vm = require('vm');
const { rewriteImports } = require('./imports.js');
const { compileTypeScript } = require('./typescript.js');

const kControlFd = 3;

// --- events -----------------------------------------------------------------------------------

// Writes all of `text`, waiting while the reader is slow.
function writeAll(fd, text) {
  const bytes = Buffer.from(text);
  let at = 0;
  while (at < bytes.length) {
    try {
      at += fs.writeSync(fd, bytes, at);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}

// One line of ASCII: a client may decode each piece of the stream by itself.
function send(event) {
  const text = JSON.stringify(event).replace(
      /[\u007f-\uffff]/g, (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));
  writeAll(kControlFd, text + '\n');
}

// A stack without this program's own frames below the cell's.
function ownFrames(stack) {
  const end = stack.search(/\n +at (new )?\S+ \(node:inspector:/);
  return end < 0 ? stack : stack.slice(0, end);
}

function sendError(error) {
  const isError = util.types.isNativeError(error);
  send({
    type: 'error',
    name: isError ? String(error.name) : 'Error',
    value: isError ? String(error.message) : inspect(error),
    traceback: isError && error.stack ? ownFrames(String(error.stack)) : inspect(error),
  });
}

// --- results ----------------------------------------------------------------------------------

const kFields = {
  'text/plain': 'text', 'text/html': 'html', 'text/markdown': 'markdown', 'text/latex': 'latex',
  'image/svg+xml': 'svg', 'image/png': 'png', 'image/jpeg': 'jpeg', 'application/pdf': 'pdf',
  'application/json': 'json', 'application/javascript': 'javascript',
};

function inspect(value) {
  return typeof value === 'string' ? value : util.inspect(value);
}

// What an object says of itself by the method Symbol.for("Jupyter.display"), which returns
// {MIME type: content}; else its text.
async function sendResult(value, isMain) {
  const event = { type: 'result', is_main_result: isMain };
  const display = value !== null && typeof value === 'object' || typeof value === 'function'
      ? value[Symbol.for('Jupyter.display')] : undefined;
  if (typeof display !== 'function') {
    event.text = inspect(value);
  } else {
    for (const [mime, content] of Object.entries(await display.call(value))) {
      if (kFields[mime]) event[kFields[mime]] = content;
      else (event.extra ??= {})[mime] = content;
    }
  }
  send(event);
}

// --- evaluation -------------------------------------------------------------------------------

const session = new inspector.Session();
session.connect();

// The remote end's answer to `method`, when it comes; for what runs at once, before this returns.
function post(method, parameters) {
  return new Promise((resolve, reject) => {
    session.post(method, parameters,
                 (error, answer) => error ? reject(new Error(error.message)) : resolve(answer));
  });
}

// The value a remote object stands for.
let taken;
async function take(remote) {
  if (remote.objectId === undefined) {
    if (remote.unserializableValue === undefined) return remote.value;
    return vm.runInThisContext(remote.unserializableValue);  // NaN, -0, 1n, ...
  }
  await post('Runtime.callFunctionOn', {
    objectId: remote.objectId,
    functionDeclaration: 'function(value) { globalThis[Symbol.for("cube.take")](value); }',
    arguments: [{ objectId: remote.objectId }],
  });
  const value = taken;
  taken = undefined;
  return value;
}

// A SIGINT that comes when Node goes over from one way of handling it to the other is kept for the next
// script that can be broken off, but not for another cell: this one takes it.
const absorber = new vm.Script('for (const end = Date.now() + 5; Date.now() < end;);');
async function absorbInterrupts() {
  for (let quiet = false; !quiet;) {
    await new Promise((resolve) => setImmediate(resolve));
    try {
      absorber.runInThisContext({ breakOnSigint: true });
      quiet = true;
    } catch {
      // One was taken.
    }
  }
}

class Interrupted extends Error {
  constructor() {
    super('the execution was interrupted');
    this.name = 'Interrupted';
    this.stack = `${this.name}: ${this.message}`;
  }
}

let interrupt = () => {};  // ends the execution that awaits, if one does
process.on('SIGINT', () => interrupt());

// Starts the evaluation of `code`. What it does before it first awaits is ended by a SIGINT, which
// only code run by vm.Script reacts to.
let begin;
const starter = new vm.Script('globalThis[Symbol.for("cube.begin")]()', { filename: 'cell' });

async function evaluate(code) {
  const interrupted = new Promise((_, reject) => { interrupt = () => reject(new Interrupted()); });
  interrupted.catch(() => {});
  let answer;
  begin = () => {
    answer = post('Runtime.evaluate', {
      expression: `${code}\n//# sourceURL=cell-${executions}`, replMode: true, objectGroup: 'cell',
    });
  };
  try {
    starter.runInThisContext({ breakOnSigint: true });
  } catch (error) {
    if (error.code === 'ERR_SCRIPT_EXECUTION_INTERRUPTED') throw new Interrupted();
    throw error;
  }
  const { result, exceptionDetails } = await Promise.race([answer, interrupted]);
  if (exceptionDetails) {
    const thrown = exceptionDetails.exception;
    throw thrown ? await take(thrown) : new Error(exceptionDetails.text);
  }
  return result.type === 'undefined' ? undefined : await take(result);
}

// --- the cells' world -------------------------------------------------------------------------

function define(key, value) {
  Object.defineProperty(globalThis, key, { value, writable: true, configurable: true });
}

function setUpGlobals() {
  define(Symbol.for('cube.take'), (value) => { taken = value; });
  define(Symbol.for('cube.begin'), () => begin());
  const base = path.join(process.cwd(), 'cell');
  const require = createRequire(base);
  define('require', require);
  define('__filename', base);
  define('__dirname', process.cwd());
  define('display', (value) => sendResult(value, false));
  // What import() becomes: as if the cell were a file in the working directory.
  define(Symbol.for('cube.import'), (specifier) => {
    specifier = String(specifier);
    if (/^\.{0,2}\//.test(specifier)) {
      return import(pathToFileURL(path.resolve(process.cwd(), specifier)).href);
    }
    try {
      const file = require.resolve(specifier);
      if (path.isAbsolute(file)) return import(pathToFileURL(file).href);
    } catch {
      // A package of modules only, or an URL.
    }
    return import(specifier);
  });
}

// V8 seeds Math.random() once, so copies of this process would draw the same numbers from here on.
function reseed() {
  const source = fs.openSync('/dev/urandom', 'r');
  const words = new Uint32Array(1024);
  let left = 0;
  Math.random = function random() {
    if (left === 0) {
      fs.readSync(source, words);
      left = words.length;
    }
    left -= 2;
    return ((words[left] >>> 5) * 67108864 + (words[left + 1] >>> 6)) / 9007199254740992;
  };
}

let globals = {};  // variables of the environment that all executions have in common

function takeIdentity(environment) {
  reseed();
  for (const name of Object.keys(globals)) {
    if (!(name in environment)) delete process.env[name];
  }
  Object.assign(process.env, environment);
  globals = environment;
}

// --- requests ---------------------------------------------------------------------------------

const isTypeScript = process.argv[3] === 'typescript';
let executions = 0;

async function execute(request) {
  const variables = request.env_vars ?? {};
  const saved = Object.fromEntries(Object.keys(variables).map((name) => [name, process.env[name]]));
  send({ type: 'number_of_executions', execution_count: ++executions });
  try {
    Object.assign(process.env, variables);
    const code = isTypeScript ? compileTypeScript(request.code) : request.code;
    const value = await evaluate(rewriteImports(code));
    if (value !== undefined) await sendResult(value, true);
  } catch (error) {
    interrupt = () => {};
    sendError(error);
    if (error instanceof Interrupted) await absorbInterrupts();
  } finally {
    interrupt = () => {};
    for (const [name, value] of Object.entries(saved)) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
    session.post('Runtime.releaseObjectGroup', { objectGroup: 'cell' });
  }
  send({ type: 'end_of_execution' });
}

async function work(requests) {
  for (const request of requests) {
    if (request.type === 'execute') await execute(request);
    else if (request.type === 'identity') takeIdentity(request.environment);
  }
}

function serve() {
  const control = new (require('net').Socket)({ fd: kControlFd, readable: true, writable: false });
  let pieces = [];
  let working = Promise.resolve();
  control.on('data', (data) => {
    const requests = [];
    let start = 0;
    for (let end; (end = data.indexOf(10, start)) >= 0; start = end + 1) {
      pieces.push(data.subarray(start, end));
      requests.push(JSON.parse(Buffer.concat(pieces).toString()));
      pieces = [];
    }
    if (start < data.length) pieces.push(data.subarray(start));
    if (requests.length > 0) working = working.then(() => work(requests));
  });
  control.on('end', () => process.exit(0));
}

process.chdir(process.argv[2]);
setUpGlobals();
for (const event of ['uncaughtException', 'unhandledRejection']) {
  process.on(event, (error) => {
    const text = util.types.isNativeError(error) ? ownFrames(error.stack) : util.inspect(error);
    if (!(error instanceof Interrupted)) writeAll(2, `Uncaught ${text}\n`);
  });
}
process.argv.splice(1);
serve();
send({ type: 'ready', pid: process.pid });
