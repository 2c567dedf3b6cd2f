import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { Node } from '../api/node.mjs'

const program = path.resolve(process.env.CUBE)
const images = ['--kernel', process.env.CUBE_KERNEL, '--initrd', process.env.CUBE_INITRD]
let node, id, folder
before(async () => {
  node = await Node.start({ config: '[pool]\nsize = 1\n' })
  id = await create()
  folder = await mkdtemp('/tmp/cube-client-')
})
after(async () => {
  await node.stop()
  await rm(folder, { recursive: true, force: true })
})

function cube(words, options = {}) {
  const { status, stdout, stderr } = spawnSync(program, ['--home', node.home, ...words], { encoding: 'utf8', maxBuffer: 1 << 26, ...options })
  return { status, stdout, stderr }
}
const create = async () => (await node.cube('sandbox', 'create', 'base', '--token', 'a-secret')).sandbox.id
const exec = (words, options) => cube(['sandbox', 'exec', ...words], options)
const sh = (script, options) => exec([id, '--', 'sh', '-c', script], options)

test('exec: output, errors, status, variables, user and folder', () => {
  assert.deepEqual(exec([id, 'echo', 'hello']), { status: 0, stdout: 'hello\n', stderr: '' })
  assert.deepEqual(sh('echo out; echo err >&2; exit 7'), { status: 7, stdout: 'out\n', stderr: 'err\n' })
  assert.equal(sh('kill -TERM $$').status, 143)
  assert.equal(exec(['-u', 'root', '-w', '/tmp', '-e', 'A=b c', id, '--', 'sh', '-c', 'id -un; pwd; echo "$A"']).stdout, 'root\n/tmp\nb c\n')
  for (const [words, why] of [[[id, '--', 'no-such-program'], /no-such-program/], [['nobody', '--', 'true'], /nobody/],
    [['-w', '/nowhere', id, '--', 'true'], /nowhere/], [['-u', 'nobody-here', id, 'true'], /nobody-here/]]) {
    const { status, stderr } = exec(words)
    assert.equal(status, 125, words.join(' '))
    assert.match(stderr, why)
  }
})

test('exec: input of any size, and none', () => {
  const bytes = randomBytes(3 << 20)
  const { stdout } = exec([id, '--', 'cat'], { input: bytes, encoding: 'buffer' })
  assert.ok(bytes.equals(stdout))
  assert.equal(sh('wc -c', { input: '' }).stdout, '0\n')
  // Who does not read it is not waited for.
  assert.deepEqual(sh('exit 3', { input: bytes }), { status: 3, stdout: '', stderr: '' })
})

test('exec --json', () => {
  const { stdout } = cube(['--json', 'sandbox', 'exec', id, '--', 'sh', '-c', 'echo out; printf "\\377" >&2; exit 2'])
  assert.deepEqual(JSON.parse(stdout), { ok: true, status: 2, stdout: 'out\n', stderr_base64: '/w==' })
  const failed = cube(['--json', 'sandbox', 'exec', 'nobody', '--', 'true'])
  assert.equal(JSON.parse(failed.stdout).ok, false)
})

test('exec -it: a terminal with our size, which is given back as it was', async () => {
  const command = `stty rows 33 cols 77; ${program} --home ${node.home} sandbox exec -it ${id} -- sh; echo "status $?"; stty -a`
  const terminal = spawn('script', ['-qfec', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] })
  let screen = ''
  const sees = (what) => new Promise((resolve, reject) => {
    const look = () => { if (what.test(screen)) { terminal.stdout.off('data', look); resolve() } }
    terminal.stdout.on('data', look).once('end', () => reject(new Error(`not seen: ${what} in ${screen}`)))
    look()
  })
  terminal.stdout.on('data', (bytes) => { screen += bytes })
  await sees(/[$#] /)
  terminal.stdin.write('tty; stty size; echo $TERM\r')
  await sees(/\/dev\/pts\/\d+\s+33 77/)
  // Ctrl-C is for what runs in it, once that has the terminal.
  terminal.stdin.write("sh -c 'echo on$((1)); exec sleep 1000'\r")
  await sees(/on1/)
  terminal.stdin.write('\x03')
  terminal.stdin.write('exit 5\r')
  await sees(/status 5[^]*[^-]isig icanon/)
  terminal.stdin.end()
  await once(terminal, 'exit')
  assert.match(exec(['-t', id, 'true'], { input: '' }).stderr, /stdin is not a terminal/)
})

test('exec: a signal is passed on', async () => {
  const process = spawn(program, ['--home', node.home, 'sandbox', 'exec', id, '--', 'sh', '-c',
    'trap "echo told; exit 9" TERM; echo ready; while :; do sleep 0.1; done'], { stdio: ['ignore', 'pipe', 'inherit'] })
  let said = ''
  process.stdout.on('data', (bytes) => {
    if (said === '') process.kill('SIGINT')
    said += bytes
  })
  const [status] = await once(process, 'close')
  assert.deepEqual([status, said], [9, 'ready\ntold\n'])
})

test('cp: files', async () => {
  const bytes = randomBytes(2 << 20)
  await writeFile(`${folder}/file`, bytes)
  await chmod(`${folder}/file`, 0o750)
  const sent = JSON.parse(cube(['--json', 'sandbox', 'cp', `${folder}/file`, `${id}:/tmp/new name%`]).stdout)
  assert.deepEqual(sent, { ok: true, files: 1, folders: 0, bytes: bytes.length, left_out: 0 })
  assert.equal(sh("stat -c '%a %s' '/tmp/new name%'").stdout, `750 ${bytes.length}\n`)
  assert.equal(cube(['sandbox', 'cp', `${folder}/file`, `${id}:/tmp`]).status, 0)
  assert.equal(cube(['sandbox', 'cp', `${folder}/file`, `${id}:`]).status, 0)
  assert.equal(sh('cmp /tmp/file ~/file && cmp /tmp/file "/tmp/new name%" && echo same').stdout, 'same\n')
  assert.equal(cube(['sandbox', 'cp', `${id}:/tmp/new name%`, `${folder}/back`]).status, 0)
  assert.ok(bytes.equals(await readFile(`${folder}/back`)))
  assert.equal((await stat(`${folder}/back`)).mode & 0o7777, 0o750)
  assert.equal(cube(['sandbox', 'cp', `${id}:/etc/hostname`, folder]).status, 0)
  assert.ok((await readdir(folder)).includes('hostname'))
  for (const [from, to, why] of [['/x', '/y', /ID:PATH/], [`${id}:/x`, `${id}:/y`, /ID:PATH/], ['/nowhere', `${id}:/tmp`, /nowhere/],
    [`${id}:/nowhere`, folder, /nowhere/], [`${folder}/file`, `${id}:/proc/x`, /./], [`${id}:/etc/hostname`, '/nowhere/at/all', /nowhere/]]) {
    const { status, stderr } = cube(['sandbox', 'cp', from, to])
    assert.equal(status, 1, `${from} ${to}`)
    assert.match(stderr, why)
  }
})

test('cp: folders, there and back', async () => {
  await mkdir(`${folder}/tree/inner/empty`, { recursive: true })
  await writeFile(`${folder}/tree/script`, '#!/bin/sh\necho runs\n', { mode: 0o755 })
  await writeFile(`${folder}/tree/inner/ümläut`, 'text')
  await symlink('inner/ümläut', `${folder}/tree/link`)
  assert.equal(cube(['sandbox', 'cp', `${folder}/tree`, `${id}:/tmp/copy`]).status, 0)
  assert.equal(sh('/tmp/copy/script; readlink /tmp/copy/link; cat /tmp/copy/inner/*laut /tmp/copy/inner/uml* /tmp/copy/link 2>/dev/null; ls /tmp/copy/inner | wc -l').stdout,
    'runs\ninner/ümläut\ntext2\n')
  // Into one that is there.
  assert.equal(cube(['sandbox', 'cp', `${folder}/tree`, `${id}:/tmp/copy`]).status, 0)
  assert.equal(sh('/tmp/copy/tree/script').stdout, 'runs\n')
  sh('rm -r /tmp/copy/tree; mkfifo /tmp/copy/pipe; ln -s /etc /tmp/copy/etc')
  const back = cube(['--json', 'sandbox', 'cp', `${id}:/tmp/copy`, `${folder}/again`])
  assert.deepEqual(JSON.parse(back.stdout), { ok: true, files: 3, folders: 3, bytes: 28, left_out: 2 })
  assert.match(back.stderr, /pipe is left out/)
  assert.deepEqual((await readdir(`${folder}/again`, { recursive: true })).sort(), ['inner', 'inner/empty', 'inner/ümläut', 'link', 'script'])
  assert.equal((await stat(`${folder}/again/script`)).mode & 0o777, 0o755)
})

test('cp: what lies in the way here is not followed', async () => {
  await mkdir(`${folder}/trap/inner`, { recursive: true })
  await writeFile(`${folder}/victim`, 'mine')
  await symlink(`${folder}/victim`, `${folder}/trap/file`)
  sh('mkdir -p /tmp/hostile; echo theirs > /tmp/hostile/file')
  const { status, stderr } = cube(['sandbox', 'cp', `${id}:/tmp/hostile/.`, `${folder}/trap`])
  assert.equal(status, 1)
  assert.match(stderr, /file/)
  assert.equal(await readFile(`${folder}/victim`, 'utf8'), 'mine')
  assert.equal(await readlink(`${folder}/trap/file`), `${folder}/victim`)
})

test('logs --follow ends with the sandbox', async () => {
  const other = await create()
  const logs = spawn(program, ['--home', node.home, 'sandbox', 'logs', '--follow', other], { stdio: ['ignore', 'pipe', 'inherit'] })
  let said = ''
  logs.stdout.on('data', (bytes) => { said += bytes })
  const { sandbox } = await node.cube('sandbox', 'info', other)
  process.kill(sandbox.pid, 'SIGKILL')
  const [status] = await once(logs, 'close')
  assert.equal(status, 0)
  assert.equal(said, cube(['sandbox', 'logs', other]).stdout)
  assert.equal(exec([other, 'true']).status, 125)
  assert.match(exec([other, 'true']).stderr, /is dead/)
})

test('template build and rm', async () => {
  const vmm = path.resolve(process.env.CUBE_VMM)
  const built = cube(['template', 'build', '--vmm', vmm, 'small', ...images, '--rootfs', process.env.CUBE_ROOTFS, '--memory', '256'])
  assert.equal(built.status, 0, built.stderr)
  const names = async () => (await node.cube('template', 'ls')).templates.map((each) => each.name)
  while (!(await names()).includes('small')) { /* the node has yet to be told */ }
  const { sandbox } = await node.cube('sandbox', 'create', 'small')
  // Its agent is reached without anybody having said how.
  assert.equal(exec([sandbox.id, 'echo', 'small']).stdout, 'small\n')
  assert.match(cube(['template', 'rm', 'small']).stderr, /in use/)
  await node.cube('sandbox', 'kill', sandbox.id)
  assert.equal(cube(['template', 'rm', 'small']).status, 0)
  assert.ok(!(await names()).includes('small'))
  assert.match(cube(['template', 'rm', 'small']).stderr, /no template "small"/)
  assert.notEqual(cube(['template', 'build', '--vmm', '/nowhere/vmm', 'x']).status, 0)
})

test('every command has --json, errors as well', async () => {
  for (const words of [['status'], ['pool'], ['sandbox', 'ls'], ['sandbox', 'info', id], ['sandbox', 'metrics', id], ['sandbox', 'logs', id],
    ['template', 'ls'], ['snapshot', 'ls'], ['key', 'ls']]) {
    assert.equal(JSON.parse(cube([...words, '--json']).stdout).ok, true, words.join(' '))
  }
  for (const words of [['sandbox', 'info', 'nobody'], ['sandbox', 'cp', 'nobody:/x', '/tmp'], ['template', 'rm', 'nobody']]) {
    const { status, stdout } = cube([...words, '--json'])
    assert.equal(status, 1)
    assert.equal(JSON.parse(stdout).ok, false, words.join(' '))
  }
})

test('completion in each shell', async () => {
  const env = { ...process.env, PATH: `${folder}:${process.env.PATH}` }
  await writeFile(`${folder}/cube`, `#!/bin/sh\nexec ${program} --home ${node.home} "$@"\n`, { mode: 0o755 })
  for (const shell of ['bash', 'zsh', 'fish']) await writeFile(`${folder}/${shell}`, cube(['completion', shell]).stdout)
  const run = (command, ...words) => {
    const { status, stdout, stderr } = spawnSync(command, words, { encoding: 'utf8', env })
    assert.equal(status, 0, stderr)
    return stdout.split(/\s+/).filter(Boolean)
  }
  const bash = (...words) => run('bash', '-c', `source ${folder}/bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _cube; echo "\${COMPREPLY[@]}"`, '-', ...words)
  assert.deepEqual(bash('cube', 'sand'), ['sandbox'])
  assert.deepEqual(bash('cube', 'sandbox', 'ex'), ['exec'])
  assert.deepEqual(bash('cube', 'sandbox', 'exec', '--t'), ['--tty'])
  assert.ok(bash('cube', 'sandbox', 'kill', '').includes(id))
  const fish = (line) => run('fish', '--no-config', '-c', `source ${folder}/fish; complete -C '${line}' | cut -f 1`)
  assert.deepEqual(fish('cube sand'), ['sandbox'])
  assert.deepEqual(fish('cube sandbox exec --t'), ['--tty'])
  assert.ok(fish('cube sandbox kill ').includes(id))
  // compadd is zsh's own, and works within its editor only.
  const zsh = (...words) => run('zsh', '-f', '-c', `compdef() { :; }; compadd() { echo "\${found[@]}"; }; source ${folder}/zsh
    words=("$@"); CURRENT=$#; _cube`, '-', ...words)
  assert.ok(zsh('cube', 'sandbox', '').includes('exec'))
  assert.ok(zsh('cube', 'sandbox', 'kill', '').includes(id))
  assert.notEqual(cube(['completion', 'tcsh']).status, 0)
})
