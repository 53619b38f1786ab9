// Drives @hydra-sdk/bridge for a test: one bridge for each URL.
//
//   node driver.mjs FOLDER_OF_NODE_MODULES URL...
//
// In, one JSON object a line:   {"id": 1, "party": 0, "call": "commands.init", "args": []}
// Out, one JSON object a line:  {"id": 1, "value": ...} or {"id": 1, "error": ...}, and {"party": 0, "message": ...}
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

const [modules, ...urls] = process.argv.slice(2)
// What the library prints must not get between our lines.
console.log = console.info = console.warn = console.error
globalThis.WebSocket = createRequire(join(modules, 'driver.js'))('ws')
const { HydraBridge } = await import(pathToFileURL(join(modules, '@hydra-sdk', 'bridge', 'dist', 'index.mjs')).href)

const plain = (_, value) =>
  value instanceof Map ? Object.fromEntries(value) : typeof value === 'bigint' ? value.toString() : value
const say = (line) => process.stdout.write(JSON.stringify(line, plain) + '\n')

const bridges = urls.map((url, party) => {
  const bridge = new HydraBridge({ url })
  bridge.events.on('onMessage', (message) => say({ party, message }))
  return bridge
})

for await (const line of createInterface({ input: process.stdin })) {
  const { id, party, call, args } = JSON.parse(line)
  const names = call.split('.')
  const name = names.pop()
  const owner = names.reduce((value, each) => value[each], bridges[party])
  Promise.resolve()
    .then(() => owner[name](...args))
    .then((value) => say({ id, value: value ?? null }))
    .catch((error) => say({ id, error: error instanceof Error ? String(error) : error }))
}
process.exit(0)
