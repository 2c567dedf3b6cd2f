import assert from 'node:assert/strict'
import { mkdir, mkdtemp, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { e2b, Node } from './node.mjs'

const { Template, Sandbox } = e2b
let node, context
before(async () => {
  node = await Node.start({ config: '[pool]\nsize = 0\n' })
  await node.putImages()
  context = await mkdtemp(path.join(node.home, 'context-'))
  await mkdir(path.join(context, 'app'))
  await writeFile(path.join(context, 'app/main.py'), 'print("from the app")\n')
  await writeFile(path.join(context, 'one file.txt'), 'one\n')
})
after(() => node.stop())
const build = (template, name, options = {}) =>
  Template.build(template, name, { ...node.options, logsRefreshFrequency: 20, ...options })

test('a template of every kind of step, and a sandbox of it', async () => {
  const logs = []
  const template = Template({ fileContextPath: context })
    .fromTemplate('base')
    .setEnvs({ GREETING: 'good "day"', TWICE: '$GREETING $GREETING' })
    .runCmd('echo built by $(id -un) > built; echo "$GREETING"')
    .setWorkdir('/home/user/app')
    .copy('app', '.')
    .copy('one file.txt', '/home/user/other/', { mode: 0o600 })
    .runCmd(['apt-get --version > /tmp/apt', 'id -un > /tmp/as'], { user: 'root' })
    .setUser('worker')
    .setWorkdir('/home/worker')
    .setStartCmd('echo started > /tmp/started; exec sleep 1000', '[ -f /tmp/started ]')
  const info = await build(template, 'mine:v1', { tags: ['latest'], cpuCount: 1, memoryMB: 256, onBuildLogs: (entry) => logs.push(entry.message) })
  assert.match(info.buildId, /^[0-9a-f-]{36}$/)
  assert.ok(logs.some((line) => line.includes('good "day"')))
  assert.equal(await Template.exists('mine', node.options), true)
  assert.equal(await Template.exists('mine:v1', node.options), true)
  assert.equal(await Template.exists('nobody', node.options), false)
  const sandbox = await node.create('mine:v1')
  const said = await sandbox.commands.run('id -un; pwd; echo "$TWICE"; cat /tmp/as /tmp/started; pgrep sleep > /dev/null && echo runs')
  assert.equal(said.stdout, 'worker\n/home/worker\ngood "day" good "day"\nroot\nstarted\nruns\n')
  const files = await sandbox.commands.run('python3 app/main.py; stat -c "%U %a" main.py app/main.py; cat built', { cwd: '/home/user', user: 'root' })
    .catch((error) => error)
  assert.match(files.stdout + files.stderr, /built by user|from the app/)
  assert.equal((await sandbox.commands.run('stat -c "%U %a" "/home/user/other/one file.txt"', { user: 'root' })).stdout, 'user 600\n')
  assert.equal((await sandbox.getInfo()).memoryMB, 256)
  await sandbox.kill()
})

test('tags name builds; a new build leaves the old one', async () => {
  const make = (text, name) => build(Template().fromTemplate('base').runCmd(`echo ${text} > /home/user/which`), name)
  const first = await make('first', 'tagged')
  await Template.assignTags('tagged', ['stable', 'other'], node.options)
  const second = await make('second', 'tagged')
  const which = async (name) => {
    const sandbox = await node.create(name)
    const text = await sandbox.files.read('which')
    await sandbox.kill()
    return text
  }
  assert.equal(await which('tagged'), 'second\n')
  assert.equal(await which('tagged:stable'), 'first\n')
  const tags = Object.fromEntries((await Template.getTags('tagged', node.options)).map((each) => [each.tag, each.buildId]))
  assert.deepEqual(tags, { default: second.buildId, stable: first.buildId, other: first.buildId })
  await Template.removeTags('tagged', 'other', node.options)
  await assert.rejects(node.create('tagged:other'), /404/)
  await assert.rejects(Template.removeTags('tagged', 'default', node.options), /400/)
  await assert.rejects(Template.assignTags('nobody', 'x', node.options), /404/)
  const list = (await node.fetch('GET', '/templates')).json
  assert.deepEqual(list.find((each) => each.templateID === 'tagged').buildCount, 2)
  assert.ok(!list.some((each) => each.templateID.startsWith('tagged.')))
  const held = await node.create('tagged')
  assert.equal((await node.fetch('DELETE', '/templates/tagged')).status, 409)
  await held.kill()
  assert.equal((await node.fetch('DELETE', '/templates/tagged')).status, 204)
  assert.equal((await node.fetch('DELETE', '/templates/tagged')).status, 404)
  await assert.rejects(node.create('tagged'), /404/)
})

test('a build that fails says where and why', async () => {
  const failing = Template().fromTemplate('base').runCmd('true').runCmd('echo the reason >&2; exit 7')
  await assert.rejects(build(failing, 'failing'), (error) => {
    assert.ok(error instanceof e2b.BuildError)
    assert.match(error.message, /status 7[^]*the reason/)
    return true
  })
  await assert.rejects(build(Template().fromTemplate('base').runCmd('true', { user: 'nobody-there' }), 'failing'), /nobody-there/)
  await assert.rejects(build(Template().fromImage('registry.test/some/image:1'), 'failing'), /is not on this node/)
  await assert.rejects(build(Template().fromTemplate('nobody'), 'failing'), /404/)
  await assert.rejects(node.create('failing'), /404/)
})

test('an image that is there, and a build in the background', async () => {
  const info = await Template.buildInBackground(Template().fromImage('debian:bookworm').runCmd('cat /etc/debian_version'), 'from-image', node.options)
  let status
  do { status = await Template.getBuildStatus(info, node.options) } while (['waiting', 'building'].includes(status.status))
  assert.equal(status.status, 'ready', JSON.stringify(status.reason))
  const sandbox = await node.create('from-image')
  assert.equal((await sandbox.commands.run('id -un')).stdout, 'user\n')
  await sandbox.kill()
})

test('uploads need their signature', async () => {
  const hash = 'a'.repeat(64)
  const { json } = await node.fetch('GET', `/templates/base/files/${hash}`)
  assert.equal(json.present, false)
  for (const wrong of [json.url.replace(/signature=./, 'signature=z'), json.url.replace('aaaa', 'bbbb'), json.url.replace(/until=\d/, 'until=9')]) {
    assert.notEqual((await fetch(wrong, { method: 'PUT', body: 'x' })).status, 204, wrong)
  }
  assert.equal((await fetch(json.url, { method: 'PUT', body: 'not a tar' })).status, 204)
  assert.equal((await node.fetch('GET', `/templates/base/files/${hash}`)).json.present, true)
  for (const wrong of ['A'.repeat(64), 'x', '..%2f..%2fetc']) {
    assert.equal((await node.fetch('GET', `/templates/base/files/${wrong}`)).status, 400)
  }
})

test('names that are none', async () => {
  for (const name of ['', ':x', 'a:', 'a b', 'x'.repeat(200), '-a', '../a']) {
    assert.equal((await node.fetch('POST', '/v3/templates', { body: { name } })).status, 400, name)
  }
  assert.equal((await node.fetch('POST', '/templates', { body: {} })).status, 501)
})
