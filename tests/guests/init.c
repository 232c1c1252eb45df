/* The first process of the Linux guest: a shell of a few words, without a C library.
 *
 * It says "ready" and then takes a line at a time from the console; each ends in a line "ok" or
 * "error NUMBER". While it waits, it brings new CPUs online, and says so.
 * Its arguments are obeyed first, with colons for blanks: `-- cat:/proc/version poweroff`.
 * It uses general registers only: what the kernel saves of the others is another test's matter. */

typedef long word;

enum { READ = 0, WRITE = 1, OPEN = 2, CLOSE = 3, POLL = 7, NANOSLEEP = 35, GETPID = 39, FORK = 57,
       EXIT = 60, WAIT4 = 61, MKDIR = 83, GETTIMEOFDAY = 96, MOUNT = 165, REBOOT = 169,
       SCHED_SETAFFINITY = 203, GETCPU = 309 };
enum { UNKNOWN = -38, O_RDWR = 2, POLLIN = 1, POLL_MS = 100, MOST_CPUS = 64 };
enum { POWER_OFF = 0x4321fedc, RESTART = 0x1234567, MAGIC1 = (int)0xfee1dead, MAGIC2 = 672274793 };

static word call(word number, word a, word b, word c, word d)
{
    word result;
    register word r10 __asm__("r10") = d;
    register word r8 __asm__("r8") = 0;
    __asm__ volatile("syscall" : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}

static word length(const char *text)
{
    word n = 0;
    while (text[n])
        n++;
    return n;
}

static void say(const char *text) { call(WRITE, 1, (word)text, length(text), 0); }

static void say_number(word value)
{
    char digits[24];
    int at = sizeof digits - 1;
    word rest = value < 0 ? -value : value;
    digits[at] = 0;
    do
        digits[--at] = '0' + rest % 10;
    while (rest /= 10);
    if (value < 0)
        digits[--at] = '-';
    say(digits + at);
}

static word number(const char *text)
{
    word value = 0;
    while (*text >= '0' && *text <= '9')
        value = value * 10 + *text++ - '0';
    return value;
}

static int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static word show(const char *path)
{
    static char block[4096];
    word file = call(OPEN, (word)path, 0, 0, 0), got;
    if (file < 0)
        return file;
    while ((got = call(READ, file, (word)block, sizeof block, 0)) > 0)
        call(WRITE, 1, (word)block, got, 0);
    call(CLOSE, file, 0, 0, 0);
    return got;
}

static word put(const char *path, const char *text)
{
    word file = call(OPEN, (word)path, O_RDWR, 0, 0), result;
    if (file < 0 && (file = call(OPEN, (word)path, 1, 0, 0)) < 0)
        return file;
    result = call(WRITE, file, (word)text, length(text), 0);
    call(CLOSE, file, 0, 0, 0);
    return result < 0 ? result : 0;
}

static void rest(word milliseconds)
{
    word time[2] = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    call(NANOSLEEP, (word)time, 0, 0, 0);
}

/* Only a CPU that was not there the last time: one that is on its way out is offline, too. */
static void bring_online(void)
{
    static char seen[MOST_CPUS];
    char path[] = "/sys/devices/system/cpu/cpu00/online", state[2];
    for (int cpu = 1; cpu < MOST_CPUS; cpu++) {
        char *digits = path + 27;
        int at = 0;
        if (cpu > 9)
            digits[at++] = '0' + cpu / 10;
        digits[at++] = '0' + cpu % 10;
        for (const char *rest = "/online"; (digits[at] = *rest); rest++)
            at++;
        word file = call(OPEN, (word)path, 0, 0, 0);
        if (file < 0) {
            seen[cpu] = 0;
            continue;
        }
        word got = call(READ, file, (word)state, 1, 0);
        call(CLOSE, file, 0, 0, 0);
        if (!seen[cpu] && got == 1 && state[0] == '0') {
            word result = put(path, "1");
            say(result ? "cannot online cpu " : "onlined cpu ");
            say_number(cpu);
            say("\n");
        }
        seen[cpu] = 1;
    }
}

/* A child on each CPU it is told: says where it runs. */
static word run_on(word cpu)
{
    word child = call(FORK, 0, 0, 0, 0), status = 0;
    if (child == 0) {
        unsigned long mask[MOST_CPUS / 64] = {1UL << cpu};
        unsigned here = 0;
        word result = call(SCHED_SETAFFINITY, 0, sizeof mask, (word)mask, 0);
        if (result == 0) {
            call(GETCPU, (word)&here, 0, 0, 0);
            say("runs on ");
            say_number(here);
            say("\n");
        }
        call(EXIT, result != 0, 0, 0, 0);
    }
    call(WAIT4, child, (word)&status, 0, 0);
    return status ? -22 : 0;
}

/* Counts up, a line each 100 ms, until a key is pressed. */
static word count(void)
{
    struct { int file; short wanted, seen; } console = {0, POLLIN, 0};
    for (word n = 0;; n++) {
        say("count ");
        say_number(n);
        say("\n");
        if (call(POLL, (word)&console, 1, POLL_MS, 0) > 0)
            return 0;
    }
}

static word obey(char **words, int many)
{
    if (same(words[0], "cat") && many == 2)
        return show(words[1]);
    if (same(words[0], "write") && many == 3)
        return put(words[1], words[2]);
    if (same(words[0], "sleep") && many == 2)
        return rest(number(words[1])), 0;
    if (same(words[0], "run-on") && many == 2)
        return run_on(number(words[1]));
    if (same(words[0], "count") && many == 1)
        return count();
    if (same(words[0], "poweroff"))
        return call(REBOOT, MAGIC1, MAGIC2, POWER_OFF, 0);
    if (same(words[0], "reboot"))
        return call(REBOOT, MAGIC1, MAGIC2, RESTART, 0);
    return UNKNOWN;
}

static int read_line(char *line, int room)
{
    struct { int file; short wanted, seen; } console = {0, POLLIN, 0};
    int at = 0;
    for (;;) {
        while (call(POLL, (word)&console, 1, POLL_MS, 0) <= 0)
            bring_online();
        if (call(READ, 0, (word)(line + at), 1, 0) != 1)
            continue;
        if (line[at] == '\n' || line[at] == '\r')
            break;
        if (at < room - 1)
            at++;
    }
    line[at] = 0;
    return at;
}

static void obey_line(char *line, char blank, int is_argument)
{
    char *words[3];
    int many = 0;
    for (char *at = line; *at && many < 3;) {
        while (*at == blank)
            *at++ = 0;
        if (*at)
            words[many++] = at;
        while (*at && *at != blank)
            at++;
    }
    word result = many ? obey(words, many) : 0;
    if (result == UNKNOWN && is_argument)
        return; /* a parameter that the kernel did not know either */
    if (result < 0) {
        say("error ");
        say_number(-result);
        say("\n");
    } else {
        say("ok\n");
    }
}

/* `stack` is what the kernel leaves there: the number of arguments, then each. */
__attribute__((noreturn, used)) void start(word *stack)
{
    static char line[256];
    call(MKDIR, (word)"/proc", 0755, 0, 0);
    call(MKDIR, (word)"/sys", 0755, 0, 0);
    call(MKDIR, (word)"/dev", 0755, 0, 0);
    call(MOUNT, (word)"proc", (word)"/proc", (word)"proc", 0);
    call(MOUNT, (word)"sysfs", (word)"/sys", (word)"sysfs", 0);
    call(MOUNT, (word)"devtmpfs", (word)"/dev", (word)"devtmpfs", 0);
    say("ready\n");
    for (word i = 1; i < stack[0]; i++)
        obey_line((char *)stack[1 + i], ':', 1);
    for (;;)
        if (read_line(line, sizeof line))
            obey_line(line, ' ', 0);
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call start\n");
