import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { e2b, Machine, News } from './machine.mjs'

let machine, sandbox
before(async () => {
  machine = await Machine.start()
  sandbox = machine.sandbox()
})
after(() => machine.stop())

test('a command has output, errors and an exit code', async () => {
  const done = await sandbox.commands.run('echo out; echo err >&2')
  assert.deepEqual([done.stdout, done.stderr, done.exitCode], ['out\n', 'err\n', 0])
  await assert.rejects(sandbox.commands.run('echo before; exit 3'), (error) => {
    assert.ok(error instanceof e2b.CommandExitError)
    assert.deepEqual([error.exitCode, error.stdout], [3, 'before\n'])
    return true
  })
})

test('users, folders and variables', async () => {
  assert.equal((await sandbox.commands.run('id -un; pwd; echo $HOME')).stdout,
    'user\n/home/user\n/home/user\n')
  assert.equal((await sandbox.commands.run('id -un; pwd', { user: 'root', cwd: '/usr' })).stdout,
    'root\n/usr\n')
  const vars = await sandbox.commands.run('echo $A $E2B_SANDBOX $E2B_SANDBOX_ID', { envs: { A: 'b c' } })
  assert.equal(vars.stdout, `b c true ${machine.id}\n`)
  await assert.rejects(sandbox.commands.run('true', { user: 'nobody-at-all' }),
    e2b.AuthenticationError)
  await assert.rejects(sandbox.commands.run('true', { cwd: '/no/such' }), e2b.InvalidArgumentError)
})

test('output comes while the command runs', async () => {
  const seen = []
  const errors = []
  const news = new News()
  const handle = await sandbox.commands.run('echo one; read line; echo two; echo three >&2', {
    background: true, stdin: true,
    onStdout: (text) => { seen.push(text); news.tell() }, onStderr: (text) => errors.push(text),
  })
  await news.until(() => seen.length > 0)
  assert.deepEqual(seen, ['one\n'])
  assert.deepEqual([handle.stdout, handle.exitCode], ['one\n', undefined])
  await sandbox.commands.sendStdin(handle.pid, 'go\n')
  assert.equal((await handle.wait()).stdout, 'one\ntwo\n')
  assert.deepEqual(errors, ['three\n'])
  assert.deepEqual([handle.stdout, handle.stderr, handle.exitCode], ['one\ntwo\n', 'three\n', 0])
})

test('standard input, and its end', async () => {
  const handle = await sandbox.commands.run('cat; echo end', { background: true, stdin: true })
  await sandbox.commands.sendStdin(handle.pid, 'häl')
  await sandbox.commands.sendStdin(handle.pid, 'lo\n')
  await sandbox.commands.closeStdin(handle.pid)
  assert.equal((await handle.wait()).stdout, 'hällo\nend\n')
  assert.equal(sandbox.commands.supportsStdinClose, true)
  const other = await sandbox.commands.run('cat', { background: true, stdin: true })
  await other.sendStdin(new Uint8Array([0x61, 0x0a]))
  await other.closeStdin()
  assert.equal((await other.wait()).stdout, 'a\n')
  await assert.rejects(sandbox.commands.sendStdin(other.pid, 'x'), e2b.SandboxError)
})

test('background processes are listed, left, found again and killed', async () => {
  const handle = await sandbox.commands.run('read line; echo got $line; exit 4', { background: true, stdin: true })
  const found = (await sandbox.commands.list()).find((each) => each.pid === handle.pid)
  assert.equal(found.cmd, '/bin/bash')
  assert.deepEqual(found.args.slice(-1), ['read line; echo got $line; exit 4'])
  await handle.disconnect()
  const again = await sandbox.commands.connect(handle.pid)
  await sandbox.commands.sendStdin(handle.pid, 'it\n')
  await assert.rejects(again.wait(), (error) => error.exitCode === 4 && error.stdout === 'got it\n')

  const sleeper = await sandbox.commands.run('sleep 1000', { background: true })
  assert.equal(await sandbox.commands.kill(sleeper.pid), true)
  await assert.rejects(sleeper.wait(), e2b.CommandExitError)
  assert.equal(await sandbox.commands.kill(sleeper.pid), false)
  await assert.rejects(sandbox.commands.connect(999999), e2b.NotFoundError)
  const third = await sandbox.commands.run('sleep 1000', { background: true })
  assert.equal(await third.kill(), true)
  await assert.rejects(third.wait(), e2b.CommandExitError)
})

test('a time limit ends the command', async () => {
  // And all that it has started.
  await assert.rejects(sandbox.commands.run('sleep 1234 & sleep 1000', { timeoutMs: 1000 }), e2b.TimeoutError)
  while ((await sandbox.commands.list()).length > 0);
  await assert.rejects(sandbox.commands.run('pgrep -x -f "sleep 1234"'), e2b.CommandExitError)
})

test('megabytes of output arrive whole', async () => {
  const done = await sandbox.commands.run('seq 300000; seq 1000 >&2')
  assert.equal(done.stdout, Array.from({ length: 300000 }, (_, i) => `${i + 1}\n`).join(''))
  assert.equal(done.stderr.length, 3893)
})

test('many commands at once', async () => {
  const all = await Promise.all(Array.from({ length: 20 }, (_, i) => sandbox.commands.run(`echo ${i}`)))
  assert.deepEqual(all.map((each) => each.stdout), Array.from({ length: 20 }, (_, i) => `${i}\n`))
})

// Each process forks until it may not, says so, and waits to be killed.
const bombProgram = `import os, signal
while True:
    try:
        os.fork()
    except BlockingIOError:
        os.write(1, b"limit\\n")
        signal.pause()`

test('a fork bomb stops at the limit of its user, and the daemon goes on', async () => {
  let limited = 0
  const news = new News()
  const bomb = await sandbox.commands.run(`ulimit -u 30; exec python3 -c '${bombProgram}'`,
    { background: true, timeoutMs: 0, onStdout: (text) => { limited += text.length / 6; news.tell() } })
  await news.until(() => limited >= 29)
  const alive = await sandbox.commands.run('pgrep -c -u user python3', { user: 'root' })
  assert.ok(Number(alive.stdout) >= 29)
  await sandbox.commands.run('pkill -KILL -u user', { user: 'root' })
  await bomb.wait().catch(() => {})
  assert.equal((await sandbox.commands.run('echo alive')).stdout, 'alive\n')
})

test('a terminal', async () => {
  let text = ''
  const news = new News()
  const decoder = new TextDecoder()
  const pty = await sandbox.pty.create({
    cols: 90, rows: 30, timeoutMs: 0, envs: { PS1: '$ ' },
    onData: (bytes) => { text += decoder.decode(bytes, { stream: true }); news.tell() },
  })
  const type = (line) => sandbox.pty.sendInput(pty.pid, new TextEncoder().encode(line))
  const until = (pattern) => news.until(() => pattern.test(text))
  await type('stty size; echo $TERM $((6 * 7))\n')
  // Up to the next prompt: before it readline asks for the size and sets it again (rltty.c, set_winsize),
  // and what was set in between would be lost.
  await until(/30 90\r\n[^]*xterm-256color 42\r\n[^]*\$ $/)
  await sandbox.pty.resize(pty.pid, { cols: 120, rows: 40 })
  await type('stty size\n')
  await until(/40 120\r\n/)
  // Said by who has the terminal: before that, only the shell would get what ^C sends.
  await type('bash -c \'echo r""eady; exec sleep 1000\'\n')
  await until(/\rready\r\n/)
  await type('\x03echo interrupted $?\n')
  await until(/interrupted 130\r\n/)
  // Another client of the same terminal, and the first one leaves.
  let seen = ''
  const again = await sandbox.pty.connect(pty.pid, {
    timeoutMs: 0, onData: (bytes) => { seen += Buffer.from(bytes).toString(); news.tell() },
  })
  await type('echo both $((40 + 2))\n')
  await until(/both 42\r\n/)
  await news.until(() => /both 42\r\n/.test(seen))
  await pty.disconnect()
  await type('exit 7\n')
  await assert.rejects(again.wait(), (error) => error.exitCode === 7)

  const other = await sandbox.pty.create({ cols: 80, rows: 24, timeoutMs: 0, onData: () => {} })
  assert.equal(await sandbox.pty.kill(other.pid), true)
  await other.wait().catch(() => {})
  await assert.rejects(sandbox.commands.run(`kill -0 ${other.pid}`))
})
