// What the fuzzers in JavaScript share: streams of lines that are nearly right, and the verdicts of the Go parser.

import { execFileSync, spawnSync } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../../..', import.meta.url))
const BATCH = 500 // streams for one run of the Go parser
const ODD = ['null', 'true', 'false', '0', '-0', '-1', '1.5', '1e3', '1e400', '9223372036854775807', '9'.repeat(5000),
  '01', '+1', '.5', 'NaN', 'Infinity', '""', '"x"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"\\x"', '"\t"',
  '"\u2028"', '"\\\\"', '"\\\\\\""', '[]', '{}', '["a"]', '[1]', '[null]', '{"type":"x"}', "'x'", 'x', '']
const ENDS = ['\n', '\n', '\n', '\n', '\n', '\r\n', '\r\r\n', '\n\n', ' \n', '\n\r\n', '\n \t\n', '\n\x0b\n', '\n\ufeff\n']
const BYTES = ['00', '1f', '7f', '80', 'ff', 'c0af', 'eda080', 'f4908080', 'e280a8', 'efbbbf', 'c285', '0d', '0a', '22',
  '5c', '7b', '7d', '5b', '5d', '2c', '3a', '20', ''].map((hex) => Buffer.from(hex, 'hex'))
const CASES = { s: '\u017f', k: '\u212a', i: '\u0130' }

// An object as its keys and values, so that it can have a key twice.
class Pairs extends Array {}

// JSON, or what looks like it.
class Raw {
  constructor(text) {
    this.text = text
  }
}

export class Generator {
  #state

  // fields and types are names that the reader knows. Those that it should know are in the fixtures.
  constructor(seed, file, fields, types) {
    this.#state = seed
    Object.assign(this, { types })
    const cases = readFileSync(join(ROOT, 'docs/fixtures', file), 'utf8').split('\n').filter(Boolean)
    this.fixtures = cases.map((line) => JSON.parse(line).line).filter((line) => line.length < 2000).map((line) => {
      try {
        return pairs(JSON.parse(line))
      } catch {
        return new Raw(line)
      }
    })
    this.fields = [...new Set([...fields, ...this.fixtures.flatMap(keys)])]
  }

  // below returns an integer from 0 to n - 1 (mulberry32).
  below(n) {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * n)
  }

  pick(...list) {
    return list[this.below(list.length)]
  }

  // stream returns some lines, and a limit that they are near to, or not.
  stream() {
    const lines = Array.from({ length: 1 + this.below(5) }, () => this.line())
    const mark = Buffer.from('\ufeff'.repeat(this.pick(0, 0, 0, 1, 1, 2)))
    const near = this.pick(...lines).length + this.below(5) - 2
    const stream = Buffer.concat([mark, ...lines.flatMap((line) => [line, Buffer.from(this.pick(...ENDS))]), Buffer.from('\n')])
    return { stream, limit: this.pick(100_000, Math.max(near, 1)) }
  }

  line() {
    let text = Buffer.from(this.text(this.mutated(this.pick(...this.fixtures))))
    for (let n = this.pick(0, 0, 0, 1, 2); n > 0; n--) {
      const at = this.below(text.length + 1)
      text = Buffer.concat([text.subarray(0, at), this.pick(...BYTES), text.subarray(at + this.pick(0, 1, 1, 5))])
    }
    return text
  }

  mutated(value) {
    const changed = copy(value)
    for (let n = this.pick(0, 1, 1, 2, 3); n > 0; n--) {
      const all = places(changed)
      if (all.length === 0) break
      const [owner, at] = this.pick(...all)
      if (this.below(30) === 0) {
        const deep = new Raw(this.nested(500 + this.below(20)))
        owner[at] = owner instanceof Pairs ? [owner[at][0], deep] : deep
      } else this.change(owner, at)
    }
    return changed
  }

  change(owner, at) {
    const odd = new Raw(this.pick(...ODD))
    if (!(owner instanceof Pairs)) {
      owner[at] = this.below(4) > 0 ? odd : this.pick(...this.types)
      return
    }
    const [key, value] = owner[at]
    const anywhere = this.below(owner.length + 1)
    switch (this.below(6)) {
      case 0: return void owner.splice(anywhere, 0, [key, odd])
      case 1: return void (owner[at] = [this.cased(key), value])
      case 2: return void owner.splice(anywhere, 0, [this.cased(key), value])
      case 3: return void (owner[at] = [this.pick(...this.fields), value])
      case 4: return void owner.splice(at, 1)
      default: owner[at] = [key, key === 'type' ? this.pick(...this.types) : odd]
    }
  }

  cased(key) {
    const at = this.below(key.length + 1)
    const letter = key.slice(at, at + 1)
    return key.slice(0, at) + this.pick(CASES[letter] ?? letter.toUpperCase(), letter.toUpperCase()) + key.slice(at + 1)
  }

  nested(depth) {
    return this.below(2) ? '['.repeat(depth) + ']'.repeat(depth) : '{"a":'.repeat(depth) + '0' + '}'.repeat(depth)
  }

  text(value) {
    const space = this.pick('', '', '', ' ', '\t', '\r')
    if (value instanceof Raw) return value.text
    if (value instanceof Pairs) {
      return `{${value.map(([k, v]) => space + this.key(k) + ':' + space + this.text(v)).join(',')}}`
    }
    return Array.isArray(value) ? `[${value.map((v) => this.text(v)).join(',' + space)}]` : JSON.stringify(value)
  }

  key(key) {
    if (this.below(20) > 0 || key === '') return JSON.stringify(key)
    const at = this.below(key.length)
    const escaped = '\\u' + key.charCodeAt(at).toString(16).padStart(4, '0')
    return JSON.stringify(key.slice(0, at)).slice(0, -1) + escaped + JSON.stringify(key.slice(at + 1)).slice(1)
  }

  // pieces cuts a stream.
  * pieces(stream) {
    const size = this.pick(1, 7, 100, 1 << 20)
    for (let rest = stream, n; rest.length > 0; rest = rest.subarray(n)) {
      n = 1 + this.below(size)
      yield rest.subarray(0, n)
    }
  }
}

// keys returns the keys of a value and of what is in it.
function keys(value) {
  if (value instanceof Pairs) return [...value].flatMap(([k, v]) => [k, ...keys(v)])
  return Array.isArray(value) ? value.flatMap(keys) : []
}

function pairs(value) {
  if (Array.isArray(value)) return value.map(pairs)
  if (value === null || typeof value !== 'object') return value
  return Pairs.from(Object.entries(value), ([k, v]) => [k, pairs(v)])
}

function copy(value) {
  if (value instanceof Pairs) return Pairs.from(value, ([k, v]) => [k, copy(v)])
  return Array.isArray(value) ? value.map(copy) : value
}

function places(value) {
  if (!Array.isArray(value)) return []
  return Array.from(value).flatMap((inner, at) => [[value, at], ...places(value instanceof Pairs ? inner[1] : inner)])
}

// fuzz compares read, which returns the verdicts of the reader in JavaScript (ok or error, for each line that is not
// blank), with the Go parser's. FUZZTIME (3s, 10m) says how long, FUZZSEED repeats a run.
export async function fuzz({ protocol, file, fields, types, read, limit, tolerable = () => false }) {
  const seed = Number(process.env.FUZZSEED || randomInt(2 ** 32))
  const generator = new Generator(seed, file, fields, types)
  console.log(`seed ${seed}`)
  const directory = mkdtempSync(join(tmpdir(), 'readers-'))
  const binary = join(directory, 'readers')
  let count = 0
  try {
    execFileSync('go', ['build', '-o', binary, './internal/interop/readers'], { cwd: ROOT, stdio: 'inherit' })
    for (const end = performance.now() + milliseconds(process.env.FUZZTIME || '3s'); count === 0 || performance.now() < end;) {
      const streams = Array.from({ length: BATCH }, () => ({ ...generator.stream(), ...(limit && { limit }) }))
      for (const [i, want] of judge(binary, protocol, streams).entries()) {
        const got = await read(generator, streams[i])
        if (got.length !== want.length || got.some((v, n) => v !== want[n] && !tolerable(streams[i].stream, v))) {
          console.log(`seed ${seed}, limit ${streams[i].limit}\n${JSON.stringify(streams[i].stream.toString('latin1'))}`)
          console.log(`JavaScript ${got}\nGo         ${want}`)
          return 1
        }
        count++
      }
    }
  } finally {
    rmSync(directory, { recursive: true })
  }
  console.log(`fuzz: execs: ${count}`)
  return 0
}

function judge(binary, protocol, streams) {
  const input = streams.map(({ stream, limit }) => JSON.stringify({ stream: stream.toString('base64'), limit }) + '\n').join('')
  const { stdout, status, stderr } = spawnSync(binary, [protocol], { input, maxBuffer: 1 << 28 })
  if (status !== 0) throw new Error(`the parser in Go ended with ${status}: ${stderr}`)
  return stdout.toString().trim().split('\n').map((line) => JSON.parse(line).map((v) => v === 'ignore' ? 'ok' : v))
}

function milliseconds(text) {
  const [, number, unit] = /^([0-9.]+)(s|m|h)$/.exec(text)
  return number * { s: 1e3, m: 6e4, h: 3.6e6 }[unit]
}

// oddNumber reports whether a stream has a number of which JavaScript cannot tell whether it is an integer of 64 bits.
export const oddNumber = (stream) => /[0-9](e[+-]?[0-9]|\.0)|[0-9]{16}/i.test(stream.toString('latin1'))
