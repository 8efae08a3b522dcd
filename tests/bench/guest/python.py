# SPDX-License-Identifier: GPL-2.0-or-later
# /workload: an interpreter that waits; a request makes it import two thirds of a list of
# modules, in an order of the request's own, and use a few of them.
import hashlib
import importlib
import random
import sys

MODULES = """argparse ast asyncio base64 bisect bz2 calendar cmd code codecs collections
colorsys concurrent.futures configparser contextlib copy csv ctypes dataclasses datetime
decimal difflib dis email.message email.mime.multipart enum filecmp fileinput fnmatch
fractions functools getopt glob graphlib gzip heapq html.parser http.client http.server
inspect ipaddress itertools json logging logging.config lzma mailbox mimetypes
multiprocessing optparse pathlib pdb pickle pickletools platform plistlib pprint profile
queue re sched secrets selectors shelve shlex shutil smtplib socket socketserver sqlite3
ssl statistics string subprocess tarfile tempfile textwrap threading timeit token tokenize
tomllib traceback typing unittest unittest.mock urllib.parse urllib.request urllib.robotparser
uuid wave weakref xml.dom.minidom xml.etree.ElementTree xml.sax xmlrpc.client zipfile
zoneinfo""".split()


def answer(seed):
    rng = random.Random(seed)
    total = hashlib.sha256()
    for name in rng.sample(MODULES, len(MODULES) * 2 // 3):
        module = importlib.import_module(name)
        total.update(name.encode() + b" %d" % len(module.__name__))
    import decimal
    import json
    import re
    import sqlite3
    import statistics

    rows = [(i, rng.random(), "name %d" % rng.randrange(1000)) for i in range(300)]
    db = sqlite3.connect(":memory:")
    db.execute("create table t (id integer primary key, score real, name text)")
    db.executemany("insert into t values (?, ?, ?)", rows)
    best = db.execute("select name, count(*) from t group by name order by 2, 1").fetchall()
    text = json.dumps({"best": best, "mean": round(statistics.mean(r[1] for r in rows), 9)})
    total.update(re.sub(r"\d\b", "#", text).encode() + text.encode())
    total.update(str(decimal.Decimal(seed).exp()).encode())
    return total.hexdigest()


print("GUEST READY", flush=True)
for line in sys.stdin:
    words = line.split()
    if len(words) == 2 and words[0] == "work":
        print("GUEST ANSWER", words[1], answer(int(words[1])), flush=True)
