// node-postgres: simple and parameterised queries, named statements, cursors, COPY, notifications, a pool.
const assert = require('assert')
const { Client, Pool } = require('pg')
const Cursor = require('pg-cursor')
const copy = require('pg-copy-streams')
const { pipeline } = require('stream/promises')
const { Readable } = require('stream')

const [port, database] = process.argv.slice(2)
const where = { host: '127.0.0.1', port: Number(port), user: 'postgres', database, connectionTimeoutMillis: 10000 }

async function main () {
  const client = new Client(where)
  await client.connect()
  await client.query('CREATE TABLE t (n int PRIMARY KEY, v text)')
  for (let n = 0; n < 100; n++) await client.query('INSERT INTO t VALUES ($1, $2)', [n, 'v' + n])
  for (let n = 0; n < 50; n++) {
    const { rows } = await client.query({ name: 'by-key', text: 'SELECT v FROM t WHERE n = $1', values: [n] })
    assert.deepStrictEqual(rows, [{ v: 'v' + n }])
  }
  const several = await client.query('SELECT 1 AS a; SELECT 2 AS b')
  assert.deepStrictEqual(several.map(result => result.rows[0]), [{ a: 1 }, { b: 2 }])

  // Queries queued without waiting.
  const queued = await Promise.all([...Array(200).keys()].map(n => client.query('SELECT $1::int AS n', [n])))
  assert.deepStrictEqual(queued.map(result => result.rows[0].n), [...Array(200).keys()])

  await client.query('BEGIN')
  await client.query("INSERT INTO t VALUES (1000, 'lost')")
  await assert.rejects(client.query('SELECT 1/0'), { code: '22012' })
  await assert.rejects(client.query('SELECT 1'), { code: '25P02' })
  await client.query('ROLLBACK')
  assert.strictEqual((await client.query('SELECT count(*)::int AS c FROM t')).rows[0].c, 100)

  const cursor = client.query(new Cursor('SELECT n FROM t ORDER BY n'))
  let seen = 0
  for (let rows = await cursor.read(7); rows.length; rows = await cursor.read(7)) seen += rows.length
  assert.strictEqual(seen, 100)
  await cursor.close()

  const lines = Readable.from([...Array(3000).keys()].map(n => `${n + 5000}\tcopied\n`))
  await pipeline(lines, client.query(copy.from('COPY t FROM STDIN')))
  let text = ''
  for await (const chunk of client.query(copy.to('COPY (SELECT n FROM t WHERE n >= 5000) TO STDOUT'))) text += chunk
  assert.strictEqual(text.trim().split('\n').length, 3000)

  const listener = new Client(where)
  await listener.connect()
  const heard = new Promise(resolve => listener.on('notification', note => resolve(note.payload)))
  await listener.query('LISTEN news')
  await client.query("NOTIFY news, 'hello'")
  assert.strictEqual(await heard, 'hello')
  await listener.end()
  await client.end()

  const pool = new Pool({ ...where, max: 15 })
  await Promise.all([...Array(40).keys()].map(async n => {
    for (let turn = 0; turn < 10; turn++) {
      const one = await pool.connect()
      await one.query('BEGIN')
      await one.query('UPDATE t SET v = $2 WHERE n = $1', [n, String(turn)])
      assert.strictEqual((await one.query('SELECT v FROM t WHERE n = $1', [n])).rows[0].v, String(turn))
      await one.query('COMMIT')
      one.release()
    }
  }))
  await pool.end()
  console.log('ok')
}

main().catch(error => { console.error(error); process.exit(1) })
