/* Runs in the recorded program: maps the ring, compiles transform.c, and follows main and every thread from its first instruction.
 *
 * cpu/stalker/agent.py puts `config` before it: the ring's file, the C source, the program's entry and the bytes that belong there.
 * The program waits in a jump to itself at its entry, until `run` is sent: everything is mapped, nothing of it has run.
 * Design: docs/decisions/044.
 */
'use strict';

function libc(name) {
    return Module.getGlobalExportByName(name);
}

const open = new NativeFunction(libc('open'), 'int', ['pointer', 'int']);
const close = new NativeFunction(libc('close'), 'int', ['int']);
const mmap = new NativeFunction(libc('mmap'), 'pointer', ['pointer', 'size_t', 'int', 'int', 'int', 'long']);

const fd = open(Memory.allocUtf8String(config.ring), 2);
const ring = mmap(NULL, config.size, 3, 0x4001, fd, 0); // read and write; MAP_SHARED | MAP_NORESERVE
close(fd);

const state = Memory.alloc(config.state);
state.writePointer(ring);

/* How many threads are not Frida's. Process.enumerateThreads() traces each, Frida's too, from a process that it forks here: the two
 * may wait for each other for ever. */
function ownThreads() {
    const size = 65536;
    const entries = Memory.alloc(size);
    const end = native('list_threads', 'int', ['pointer', 'uint32'])(entries, size);
    let own = 0;
    for (let at = 0; at < end; at += entries.add(at + 16).readU16()) {
        const id = parseInt(entries.add(at + 19).readUtf8String()); // not a number: . and ..
        if (!isNaN(id) && !Cloak.hasThread(id))
            own++;
    }
    return own;
}

let followed = 0;
const follow = new NativeCallback(() => {
    for (let asked = 0; followed === 0 && ownThreads() !== 1; asked++) {
        if (asked === 50)
            native('refuse', 'void', ['uint32', 'uint64'])(config.early, 0);
        Thread.sleep(0.02); // one of Frida's that has just begun does not count as its own yet
    }
    followed++;
    Stalker.follow(Process.getCurrentThreadId(), { transform: module.transform });
}, 'void', []);

const module = new CModule(config.source, { state, follow });

function native(name, result, parameters) {
    return new NativeFunction(module[name], result, parameters);
}

native('set_loops', 'void', ['pointer'])(mmap(NULL, config.loops, 7, 0x22, -1, 0)); // private memory for code
const addPlain = native('add_plain', 'void', ['pointer', 'pointer']);
const addChanged = native('add_changed', 'void', ['pointer', 'pointer']);
const findChange = native('find_change', 'uint64', ['pointer', 'pointer', 'uint64', 'uint64']);
const setMain = native('set_main', 'void', ['pointer']);
const setThreadCreate = native('set_thread_create', 'void', ['pointer']);
const addExit = native('add_exit', 'void', ['pointer']);

/* The bytes with which Frida saves or restores the upper halves of YMM0 to YMM15 on the stack: VEXTRACTI128, VINSERTI128. */
function halves(restore) {
    const bytes = [];
    for (let i = 0; i !== 16; i++) {
        const where = (i & 7) << 3;
        bytes.push(0xc4, i < 8 ? 0xe3 : 0x63, restore ? 0x7d - 8 * i : 0x7d, restore ? 0x38 : 0x39);
        if (i === 0)
            bytes.push(0x04, 0x24);
        else if (i < 8)
            bytes.push(0x44 | where, 0x24, 16 * i);
        else
            bytes.push(0x84 | where, 0x24, 16 * i, 0, 0, 0);
        bytes.push(1);
    }
    return bytes;
}

/* Replace them by a call of code that keeps the whole registers. */
function keepWideRegisters(maps) {
    const wide = Memory.alloc(Process.pageSize);
    const write = native('write_wide', 'void', ['pointer', 'uint32']);
    for (const restore of [0, 1]) {
        const bytes = halves(restore);
        const pattern = bytes.map(byte => byte.toString(16).padStart(2, '0')).join(' ');
        const code = wide.add(1024 * restore);
        write(code, restore);
        let places = [];
        for (const { start, end, path } of maps.filter(({ path }) => path.startsWith('/memfd:')))
            places = places.concat(Memory.scanSync(start, end.sub(start).toInt32(), pattern));
        if (places.length !== 1)
            throw new Error('it keeps 512-bit registers, and this Frida saves them in another way');
        const { address, size } = places[0];
        const call = [0xff, 0x15, 2, 0, 0, 0, 0xeb, 8]; // call *2(%rip); jmp over the address
        for (let i = 0; i !== 8; i++)
            call.push(code.shr(8 * i).and(0xff).toInt32());
        Memory.protect(address, size, 'rw-');
        address.writeByteArray(call.concat(new Array(size - call.length).fill(0x90)));
        Memory.protect(address, size, 'r--');
    }
    Memory.protect(wide, Process.pageSize, 'r-x');
    return wide;
}

const maps = [];
for (const line of File.readAllText('/proc/self/maps').split('\n')) {
    const found = /^([0-9a-f]+)-([0-9a-f]+) (\S+) ([0-9a-f]+) \S+ \d+ *(.*)$/.exec(line);
    if (found !== null)
        maps.push({
            start: ptr('0x' + found[1]),
            end: ptr('0x' + found[2]),
            rights: found[3],
            offset: parseInt(found[4], 16),
            path: found[5]
        });
}
const kept = config.wide ? keepWideRegisters(maps) : null;

/* Code that cannot change: mapped from a file, not to be written, not Frida's own; and the kernel's. */
const plain = maps.filter(({ rights, path }) => rights === 'r-xp' &&
    ((path.startsWith('/') && !path.startsWith('/memfd:')) || path === '[vdso]'));
plain.forEach(({ start, end }) => addPlain(start, end));

/* Frida replaces functions of the C library and the loader: what differs from their files. */
const changed = [];
for (const { start, end, offset, path } of plain) {
    if (!/\/(libc|ld-linux[^/]*|libpthread|libdl|librt)\.so/.test(path))
        continue;
    const file = new File(path, 'rb');
    file.seek(offset);
    const size = end.sub(start).toInt32();
    const bytes = file.readBytes(size);
    file.close();
    const content = bytes.unwrap();
    let at = 0;
    for (;;) {
        at = Number(findChange(start, content, at, bytes.byteLength));
        if (at >= bytes.byteLength)
            break;
        const low = at;
        while (at < bytes.byteLength && Number(findChange(start, content, at, at + 1)) === at)
            at++;
        addChanged(start.add(low), start.add(at));
        changed.push([start.add(low).toString(), DebugSymbol.fromAddress(start.add(low)).name]);
    }
}

['exit', '_exit', '_Exit', 'quick_exit'].forEach(name => addExit(libc(name)));
setThreadCreate(libc('pthread_create'));

const listener = Interceptor.attach(libc('__libc_start_main'), {
    onEnter(args) {
        listener.detach();
        setMain(args[0]);
        args[0] = native('main_entry', 'pointer', [])();
    }
});
Interceptor.flush();

/* Not before the recorder knows that all this is done: the program may end, and this script with it, before its word arrives. */
recv('run', () => Memory.patchCode(ptr(config.entry), 8, code => code.writeU64(uint64(config.bytes))));
send({ changed });
