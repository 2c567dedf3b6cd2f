// What the SDK says of networks, by curl in sandboxes. In namespaces of its own (run.sh): "up" leads to an
// internet (world.mjs).
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { after, before, test } from 'node:test'
import path from 'node:path'
import { e2b, Node } from './node.mjs'

const all = '0.0.0.0/0'
let node, world
before(async () => {
  const script = `mount --make-rprivate / && mount -t tmpfs none /run && mount -t bpf bpf /sys/fs/bpf
    ip link set lo up && ip netns add world && ip link add dev up type veth peer name eth0 netns world
    ip addr add 203.0.113.1/24 dev up && ip link set dev up up && ip route add default via 203.0.113.2
    ip -n world addr add 203.0.113.2/24 dev eth0 && ip -n world link set lo up
    ip -n world addr add 192.0.2.80/32 dev lo && ip -n world addr add 198.51.100.7/32 dev lo
    ip -n world link set eth0 up`
  execFileSync('bash', ['-ec', script])
  world = spawn('ip', ['netns', 'exec', 'world', process.execPath,
    path.join(import.meta.dirname, 'world.mjs')], { stdio: ['ignore', 'pipe', 'inherit'] })
  await new Promise((resolve) => world.stdout.once('data', resolve))
  node = await Node.start({
    config: '[pool]\nsize = 1\n[network]\nenabled = true\nuplink = "up"\ndns = ["192.0.2.80"]\n',
    more: ['--net', 'cube'] })
})
after(async () => {
  await node?.stop()
  world?.kill()
})

// What curl in the sandbox hears, or the number of its error.
async function curl(sandbox, url, ...words) {
  try {
    const done = await sandbox.commands.run(['curl -sS --max-time 60', ...words, url].join(' '))
    return done.stdout.trim()
  } catch (error) {
    if (!(error instanceof e2b.CommandExitError)) throw error
    return error.exitCode
  }
}
// Of curl: no name, no connection, a connection that was reset.
const kNoName = 6, kRefused = 7, kReset = 56

test('the internet is open, the inside is not', async () => {
  const sandbox = await node.create()
  assert.equal(await curl(sandbox, 'http://any.example.net/'), '192.0.2.80 any.example.net')
  assert.equal(await curl(sandbox, 'http://198.51.100.7/'), '198.51.100.7 198.51.100.7')
  for (const address of ['169.254.169.254', '203.0.113.1', '10.0.0.1', '198.18.0.1']) {
    assert.equal(await curl(sandbox, `http://${address}/`), kRefused, address)
  }
  assert.equal(await curl(sandbox, 'http://[2001:db8::1]/'), kRefused)
  await sandbox.kill()
})

test('allowInternetAccess of false closes all of it', async () => {
  const sandbox = await node.create('base', { allowInternetAccess: false })
  assert.equal(await curl(sandbox, 'http://192.0.2.80/'), kRefused)
  assert.equal(await curl(sandbox, 'http://any.example.net/'), kNoName)
  await sandbox.kill()
})

test('what is allowed goes before what is denied', async () => {
  const sandbox = await node.create('base', { network: { denyOut: [all], allowOut: ['198.51.100.7'] } })
  assert.equal(await curl(sandbox, 'http://198.51.100.7/'), '198.51.100.7 198.51.100.7')
  assert.equal(await curl(sandbox, 'http://192.0.2.80/'), kRefused)
  // From the next packet on, for connections that are there as well.
  await sandbox.commands.run('mkfifo /tmp/begun')
  const download = await sandbox.commands.run(
    'curl -sS http://198.51.100.7/endless | { head -c 1000000 > /dev/null; echo > /tmp/begun; cat > /dev/null; }; ' +
    'exit ${PIPESTATUS[0]}', { background: true, timeoutMs: 0 })
  await sandbox.commands.run('cat /tmp/begun')
  const changed = await node.fetch('PUT', `/sandboxes/${sandbox.sandboxId}/network`,
    { body: { denyOut: ['198.51.100.0/24'] } })
  assert.equal(changed.status, 204)
  await assert.rejects(download.wait(), (error) => error.exitCode === kReset)
  assert.equal(await curl(sandbox, 'http://198.51.100.7/'), kRefused)
  assert.equal(await curl(sandbox, 'http://192.0.2.80/'), '192.0.2.80 192.0.2.80')
  await sandbox.kill()
})

test('names open their addresses, and those no other name', async () => {
  const sandbox = await node.create('base',
    { network: { denyOut: [all], allowOut: ['good.example.com', '*.example.org'] } })
  const open = async () => {
    assert.equal(await curl(sandbox, 'http://good.example.com/'), '192.0.2.80 good.example.com')
    assert.equal(await curl(sandbox, 'http://a.example.org/'), '192.0.2.80 a.example.org')
    assert.equal(await curl(sandbox, 'http://evil.example.net/'), kNoName)
    assert.equal(await curl(sandbox, 'http://good.example.com/', '-H "Host: evil.example.net"'), kReset)
    assert.equal(await curl(sandbox, 'http://198.51.100.7/'), kRefused)
  }
  await open()
  // After a pause as before it.
  await sandbox.pause()
  const again = await e2b.Sandbox.connect(sandbox.sandboxId, node.options)
  assert.equal(again.sandboxId, sandbox.sandboxId)
  await open()
  await sandbox.kill()
})
