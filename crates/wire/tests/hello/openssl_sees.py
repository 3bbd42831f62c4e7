"""Which server name OpenSSL takes from a ClientHello.

Reads a line for each hello: its bytes in hexadecimal. Answers with a line: "name" and the name's bytes in hexadecimal
("name" alone: there is none), "more", or "refused" and why. The very first line is OpenSSL's version.
"""

import ssl
import sys
import warnings

warnings.simplefilter("ignore", DeprecationWarning)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
# Whatever a hello asks for, it shall not fail before its extensions are read.
context.minimum_version = ssl.TLSVersion.TLSv1
context.set_ciphers("ALL:@SECLEVEL=0")

seen = []


def on_name(_connection, name, _context):
    seen.append("name" if name is None else f"name {name.encode().hex()}")
    # Nothing after this matters; there is not even a certificate.
    return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR


def on_name_that_is_no_text(_error):
    seen.append("refused name is not ASCII")


context.sni_callback = on_name
sys.unraisablehook = on_name_that_is_no_text


def answer(hello):
    seen.clear()
    received = ssl.MemoryBIO()
    received.write(hello)
    try:
        context.wrap_bio(received, ssl.MemoryBIO(), server_side=True).do_handshake()
        return "refused by nobody"
    except ssl.SSLWantReadError:
        return seen[0] if seen else "more"
    except ssl.SSLError as error:
        return seen[0] if seen else f"refused {error.reason}"


print(ssl.OPENSSL_VERSION, flush=True)
for line in sys.stdin:
    print(answer(bytes.fromhex(line)), flush=True)
