// What Template.test does not: each method of a template's builder. Programs that the image lacks (npm,
// bun and the like) are scripts here, which note what they were told.
import assert from 'node:assert/strict'
import { mkdtemp, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { e2b, Node } from './node.mjs'

const { Template } = e2b
let node, context
before(async () => {
  node = await Node.start({ config: '[pool]\nsize = 0\n' })
  await node.putImages()
  context = await mkdtemp(path.join(node.home, 'context-'))
  await writeFile(path.join(context, 'one'), '1\n')
  await writeFile(path.join(context, 'two'), '2\n')
  await writeFile(path.join(context, 'note'), '#!/bin/sh\necho "$(id -un): $(basename "$0") $*" >> /home/user/said\n')
  await writeFile(path.join(context, 'sudo'), '#!/bin/sh\nexec "$@"\n')
})
after(() => node.stop())
const build = (template, name) => Template.build(template, name, { ...node.options, logsRefreshFrequency: 20 })
// What a command says in a sandbox of that template.
const saidIn = async (name, command) => {
  const sandbox = await node.create(name)
  const { stdout } = await sandbox.commands.run(command)
  await sandbox.kill()
  return stdout
}
const note = (template, ...programs) => template.runCmd('touch said; chmod 666 said')
  .copyItems(programs.map((name) => ({ src: 'note', dest: path.resolve('/usr/local/bin', name), mode: 0o755, user: 'root' })))
const fresh = () => Template({ fileContextPath: context })

test('files and folders', async () => {
  const template = fresh().fromTemplate('base').skipCache()
    .copyItems([{ src: 'one', dest: '/home/user/' }, { src: 'two', dest: '/home/user/second', mode: 0o600, user: 'root' }])
    .makeDir(['/home/user/a b', '/home/user/c'], { mode: 0o750 })
    .rename('/home/user/one', '/home/user/a b/first')
    .makeSymlink('/home/user/a b/first', '/home/user/link')
    .runCmd('touch gone kept')
    .remove(['/home/user/gone', '/home/user/c'], { recursive: true, force: true })
    .setReadyCmd(e2b.waitForFile('/home/user/kept'))
  const steps = JSON.parse(await Template.toJSON(template)).steps
  assert.deepEqual([steps.length, steps[0].filesHash.length, steps[0].force], [7, 64, true])
  await build(template, 'files')
  assert.equal(await saidIn('files', 'cat link; stat -c "%n %U %a" second "a b"; ls'),
    '1\nsecond root 600\na b user 750\na b\nkept\nlink\nsecond\n')
  assert.equal(await Template.aliasExists('files', node.options), true)
  assert.equal(await Template.aliasExists('nobody', node.options), false)
})

test('packages of apt, pip, npm and bun; git', async () => {
  const template = note(fresh().fromTemplate('base'), 'pip', 'git', 'npm', 'bun')
    .runCmd(['mkdir -p /tmp/deb/DEBIAN /tmp/deb/opt', 'echo by apt > /tmp/deb/opt/thing',
      'printf "Package: offline-thing\\nVersion: 1\\nArchitecture: all\\nMaintainer: me <me@example.test>\\nDescription: x\\n" > /tmp/deb/DEBIAN/control',
      'dpkg-deb --root-owner-group -b /tmp/deb /tmp/thing.deb'])
    .aptInstall('/tmp/thing.deb', { noInstallRecommends: true })
    .pipInstall(['one', 'two==3'])
    .pipInstall('three', { g: false })
    .pipInstall()
    .gitClone('https://git.example.test/a b', '/home/user/a clone', { branch: 'release', depth: 1 })
    .npmInstall(['one', 'two'], { dev: true })
    .npmInstall('three', { g: true })
    .bunInstall('four', { dev: true })
    .bunInstall()
  await build(template, 'packages')
  assert.equal(await saidIn('packages', 'cat /opt/thing said'), `by apt
root: pip install one two==3
user: pip install --user three
root: pip install .
user: git clone https://git.example.test/a b --branch release --single-branch --depth 1 /home/user/a clone
user: npm install --save-dev one two
root: npm install -g three
user: bun install --dev four
user: bun install
`)
})

test('what a start command is waited for by', async () => {
  const server = 'exec python3 -m http.server 8000'
  for (const [name, ready] of Object.entries({ port: e2b.waitForPort(8000), url: e2b.waitForURL('http://localhost:8000/'),
    process: e2b.waitForProcess('python3'), time: e2b.waitForTimeout(1000) })) {
    await build(Template().fromTemplate('base').setStartCmd(server, ready), `ready-${name}`)
    assert.match(await saidIn(`ready-${name}`, 'pgrep -af http.server'), /8000/, name)
  }
})

test('the two templates that some methods need by their name', async () => {
  assert.throws(() => Template().fromTemplate('base').addMcpServer('one'), e2b.BuildError)
  assert.throws(() => Template().fromTemplate('base').betaDevContainerPrebuild('/x'), e2b.BuildError)
  assert.throws(() => Template().fromTemplate('base').betaSetDevContainerStart('/x'), e2b.BuildError)
  await build(note(fresh().fromTemplate('base'), 'mcp-gateway'), 'mcp-gateway')
  await build(Template().fromTemplate('mcp-gateway').addMcpServer(['one', 'two']), 'with-mcp')
  assert.equal(await saidIn('with-mcp', 'cat said'), 'root: mcp-gateway pull one two\n')
  await build(note(fresh().fromTemplate('base'), 'devcontainer', '/prepare-exec.sh')
    .copy('sudo', '/usr/local/bin/sudo', { mode: 0o755, user: 'root' }).setUser('root'), 'devcontainer')
  await build(Template().fromTemplate('devcontainer').betaDevContainerPrebuild('/a b').betaSetDevContainerStart('/a b'), 'with-devcontainer')
  assert.equal(await saidIn('with-devcontainer', 'cat /home/user/said; ls /devcontainer.up'),
    'root: devcontainer build --workspace-folder /a b\nroot: devcontainer up --workspace-folder /a b\nroot: prepare-exec.sh /a b\n/devcontainer.up\n')
})

test('images: of the node, of a Dockerfile, and those that are not here', async () => {
  // A template's name is an image's as well, and E2B's own is called base.
  await build(Template().fromBaseImage().runCmd('echo base > which'), 'from-base')
  assert.equal(await saidIn('from-base', 'cat which'), 'base\n')
  const dockerfile = 'FROM base\nENV WORD=said\nWORKDIR /home/user/app\nRUN echo $WORD > which\nCOPY one .\nUSER user\nCMD sleep 1000\n'
  const template = fresh().fromDockerfile(dockerfile)
  assert.match(Template.toDockerfile(template), /^FROM base\n[^]*RUN echo \$WORD > which\n/)
  await build(template, 'from-dockerfile')
  assert.equal(await saidIn('from-dockerfile', 'cat /home/user/app/which /home/user/app/one'), 'said\n1\n')
  // The disk in images is called debian here.
  await build(Template().fromDebianImage().runCmd('echo debian > which'), 'from-debian')
  assert.equal(await saidIn('from-debian', 'cat which'), 'debian\n')
  const credentials = { accessKeyId: 'a', secretAccessKey: 'b', region: 'c' }
  const absent = {
    'ubuntu:latest': Template().fromUbuntuImage(), 'fedora:40': Template().fromFedoraImage('40'),
    'alpine:3.20': Template().fromAlpineImage('3.20'), 'archlinux:latest': Template().fromArchImage(), 'python:3.12': Template().fromPythonImage('3.12'),
    'node:lts': Template().fromNodeImage(), 'oven/bun:latest': Template().fromBunImage(),
    'x.dkr.ecr.test/base': Template().fromAWSRegistry('x.dkr.ecr.test/base', credentials),
    'gcr.test/p/base': Template().fromGCPRegistry('gcr.test/p/base', { serviceAccountJSON: { a: 'b' } }),
  }
  for (const [image, wanted] of Object.entries(absent)) {
    await assert.rejects(build(wanted, 'absent'), (error) => error.message.includes(`the image '${image}' is not on this node`), image)
  }
})
