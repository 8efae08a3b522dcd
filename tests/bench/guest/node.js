// SPDX-License-Identifier: GPL-2.0-or-later
// /workload: an HTTP server with a few pages, warmed up; a request on the serial line makes
// 24 HTTP requests of it, which pages and with which numbers depends on the seed.
'use strict'
const http = require('http')
const crypto = require('crypto')
const readline = require('readline')
const path = '/run/http'

const users = Array.from({ length: 20000 }, (_, i) => ({
	id: i, name: 'user ' + ((i * 7919) % 20011), group: 'g' + (i % 97),
	mail: (i * 31) % 1009 + '@example.org',
}))
const pages = {
	list: (n) => '<ul>' + users.slice(n % 19000, n % 19000 + 50).map((u) =>
		`<li id="u${u.id}">${u.name} &lt;${u.mail}&gt;</li>`).join('') + '</ul>',
	find: (n) => JSON.stringify(users.filter((u) => u.group === 'g' + n % 97).slice(0, 99)),
	sort: (n) => users.slice(n % 15000, n % 15000 + 3000).sort((a, b) =>
		a.name < b.name ? -1 : a.name > b.name ? 1 : 0).slice(0, 40).map((u) => u.name).join(),
	sign: (n) => crypto.createHmac('sha256', 'key' + n).update(JSON.stringify(
		users[n % users.length])).digest('hex'),
	count: (n) => JSON.stringify(Object.fromEntries([...users.slice(0, n % 5000).reduce((m, u) =>
		m.set(u.mail, (m.get(u.mail) || 0) + 1), new Map())].sort())),
	date: (n) => new Intl.DateTimeFormat('en-GB', { dateStyle: 'full', timeZone: 'UTC' })
		.format(new Date(n * 86400000)),
}
const names = Object.keys(pages)

const server = http.createServer((request, response) => {
	const url = new URL(request.url, 'http://localhost')
	const page = pages[url.pathname.slice(1)]
	response.writeHead(page ? 200 : 404, { 'Content-Type': 'text/plain; charset=utf-8' })
	response.end(page ? page(Number(url.searchParams.get('n'))) : 'no such page\n')
})

const get = (target) => new Promise((resolve, reject) => {
	http.get({ socketPath: path, path: target }, (response) => {
		const parts = []
		response.on('data', (part) => parts.push(part))
		response.on('end', () => resolve(Buffer.concat(parts)))
	}).on('error', reject)
})

async function answer(seed) {
	const sum = crypto.createHash('sha256')
	for (let i = 0, at = seed; i < 24; i++) {
		at = (at * 16807 + 11) % 2147483647
		sum.update(await get(`/${names[at % names.length]}?n=${at % 65536}`))
	}
	return sum.digest('hex')
}

server.listen(path, async () => {
	await answer(0)
	console.log('GUEST READY')
	readline.createInterface({ input: process.stdin }).on('line', async (line) => {
		const [word, seed] = line.trim().split(' ')
		if (word === 'work')
			console.log('GUEST ANSWER', seed, await answer(Number(seed)))
	})
})
