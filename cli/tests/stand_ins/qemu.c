/* A qemu-system-x86_64.exe for Wine: runs the file `machine` beside it, a script of this system that becomes QEMU, as a process of Windows would run.
 *
 * Wine starts programs of its host, but knows nothing of them: neither when they end, nor how; they end with nobody, and Wine's pipes do not lead to them. So the
 * script gets a port as its first argument, and connects to it twice: the first connection is its standard output; by the second it learns that this process has
 * ended, and tells at its own end what it said on its standard error, and in a last line its exit code.
 *
 * Built by .ci/windows: x86_64-w64-mingw32-gcc -municode ... -lws2_32 */
#include <winsock2.h>
#include <windows.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

static void fail(const char *what) {
    fprintf(stderr, "qemu.c: %s: error %lu\n", what, GetLastError());
    exit(99);
}

/* The arguments as they came, without this program's own name. */
static const wchar_t *arguments(void) {
    const wchar_t *line = GetCommandLineW();
    int quoted = 0;
    for (; *line && (quoted || (*line != L' ' && *line != L'\t')); line++)
        if (*line == L'"') quoted = !quoted;
    return line;
}

static DWORD WINAPI relay(void *from) {
    char bytes[4096];
    for (int len; (len = recv((SOCKET)from, bytes, sizeof bytes, 0)) > 0;) {
        DWORD written;
        WriteFile(GetStdHandle(STD_OUTPUT_HANDLE), bytes, len, &written, NULL);
    }
    return 0;
}

int wmain(void) {
    WSADATA data;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int address_len = sizeof address;
    if (WSAStartup(MAKEWORD(2, 2), &data)) fail("no sockets");
    SOCKET door = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(door, (struct sockaddr *)&address, address_len) || listen(door, 2)) fail("no port");
    getsockname(door, (struct sockaddr *)&address, &address_len);

    wchar_t folder[MAX_PATH], program[MAX_PATH];
    GetModuleFileNameW(NULL, folder, MAX_PATH);
    *wcsrchr(folder, L'\\') = 0;
    swprintf(program, MAX_PATH, L"%ls\\machine", folder);
    size_t len = wcslen(program) + wcslen(arguments()) + 32;
    wchar_t *line = malloc(len * sizeof *line);
    swprintf(line, len, L"\"%ls\" %d%ls", program, ntohs(address.sin_port), arguments());
    STARTUPINFOW start = {.cb = sizeof start};
    PROCESS_INFORMATION process;
    if (!CreateProcessW(program, line, NULL, NULL, FALSE, 0, NULL, NULL, &start, &process)) fail("the script cannot be started");

    SOCKET out = accept(door, NULL, NULL), end = accept(door, NULL, NULL);
    HANDLE thread = CreateThread(NULL, 0, relay, (void *)out, 0, NULL);
    static char said[65536];
    size_t count = 0;
    for (int got; count < sizeof said - 1 && (got = recv(end, said + count, sizeof said - 1 - count, 0)) > 0;) count += got;
    WaitForSingleObject(thread, INFINITE);
    char *code = strrchr(said, '\n');
    if (!code) fail("the script has ended without a word");
    fwrite(said, 1, code - said, stderr);
    return atoi(code + 1);
}
