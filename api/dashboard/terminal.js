// The panel with a terminal in it; one at a time.
import { Terminal } from './xterm.mjs'
import { FitAddon } from './addon-fit.mjs'
import { Shell } from './shell.js'

const element = (id) => document.getElementById(id)

export class TerminalPanel {
  #client
  #open = null

  constructor(client) {
    this.#client = client
    element('terminal-close').addEventListener('click', () => this.close())
  }

  async open(id) {
    this.close()
    const say = (text) => { element('terminal-state').textContent = text }
    say('starting')
    element('terminal-name').textContent = id
    element('terminal').hidden = false
    document.body.classList.add('with-terminal')
    const opened = this.#open = {}
    let sandbox
    try {
      sandbox = await this.#client.sandbox(id)
    } catch (error) {
      if (this.#open === opened) this.close()
      throw error
    }
    if (this.#open !== opened) return  // closed meanwhile, or another one is open
    const terminal = new Terminal({ cursorBlink: true, fontSize: 14, scrollback: 5000,
      fontFamily: 'ui-monospace, Menlo, Consolas, monospace', theme: { background: '#11151d' } })
    const fit = new FitAddon()
    terminal.loadAddon(fit)
    terminal.open(element('terminal-screen'))
    fit.fit()
    const shell = new Shell(id, sandbox.envdAccessToken)
    const encoder = new TextEncoder()
    terminal.onData((text) => shell.type(encoder.encode(text)))
    terminal.onBinary((text) => shell.type(Uint8Array.from(text, (c) => c.charCodeAt(0) & 255)))
    terminal.onResize((size) => shell.resize(size))
    const watch = new ResizeObserver(() => fit.fit())
    watch.observe(element('terminal-screen'))
    Object.assign(opened, { terminal, shell, watch })
    terminal.focus()
    shell.run(terminal, (bytes) => terminal.write(bytes), () => say('connected'))
      .catch((error) => error.message)
      .then((how) => { if (this.#open === opened) say(`ended: ${how}`) })
  }

  close() {
    if (this.#open === null) return
    const { terminal, shell, watch } = this.#open
    this.#open = null
    watch?.disconnect()
    terminal?.dispose()
    shell?.close()
    element('terminal').hidden = true
    document.body.classList.remove('with-terminal')
  }
}
