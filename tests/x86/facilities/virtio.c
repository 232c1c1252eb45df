/* virtio-mmio: a disk whose sectors are full of their own number, and random numbers.
 *
 * A driver from VIRTIO 1.2 (4.2 registers, 2.7 rings) that takes interrupts through the I/O APIC. */
#include "guest.h"

enum { DISK = 0, RNG = 1, DISK_SIZE = 64, ENTRIES = 8, VECTOR = 0x40, FIRST_PIN = 16, MS = 5000 };
enum { MAGIC = 0x0, VERSION = 0x4, ID = 0x8, FEATURES = 0x10, FEATURES_SELECT = 0x14,
       ACCEPTED = 0x20, ACCEPTED_SELECT = 0x24, QUEUE_SELECT = 0x30, QUEUE_SIZE_MAX = 0x34,
       QUEUE_SIZE = 0x38, QUEUE_READY = 0x44, NOTIFY = 0x50, INTERRUPT = 0x60, ACKNOWLEDGE = 0x64,
       STATUS = 0x70, TABLE = 0x80, AVAILABLE = 0x90, USED = 0xa0, CONFIG = 0x100 };
enum { FOUND = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, NEEDS_RESET = 64 };
enum { NEXT = 1, WRITABLE_PART = 2 };
enum { READ = 0, WRITE = 1, FLUSH = 4, UNTOUCHED = 0xff };

struct descriptor { uint64_t address; uint32_t length; uint16_t flags, next; };
struct ring { uint16_t flags, index, entries[ENTRIES], event; };
struct used { uint16_t flags, index; struct { uint32_t head, length; } entries[ENTRIES]; };

static struct queue {
    struct descriptor table[ENTRIES] __attribute__((aligned(16)));
    volatile struct ring available __attribute__((aligned(2)));
    volatile struct used used __attribute__((aligned(4)));
} queues[2];

static struct { uint32_t type, reserved; uint64_t sector; } header;
static uint8_t data[1024];
static volatile uint8_t status;
static volatile uint32_t interrupts[2], reasons[2];

static volatile uint32_t *reg(int device, uint32_t offset)
{
    return (volatile uint32_t *)(0xfeb00000ull + device * 0x200 + offset);
}

static void on_interrupt(int device)
{
    uint32_t reason = *reg(device, INTERRUPT);
    *reg(device, ACKNOWLEDGE) = reason;
    reasons[device] |= reason;
    if (reason) /* a level can be seen once more before it falls */
        interrupts[device]++;
    apic_eoi();
}

static void on_disk(struct frame *frame) { (void)frame; on_interrupt(DISK); }
static void on_rng(struct frame *frame) { (void)frame; on_interrupt(RNG); }

static void set_address(int device, uint32_t offset, const volatile void *part)
{
    *reg(device, offset) = (uint64_t)part;
    *reg(device, offset + 4) = (uint64_t)part >> 32;
}

static bool set_up(int device)
{
    struct queue *queue = &queues[device];
    memset(queue, 0, sizeof *queue);
    interrupts[device] = reasons[device] = 0;
    handle(VECTOR + device, device == DISK ? on_disk : on_rng);
    apic_write(APIC_SPIV, 0x1ff); /* the local APIC is on */
    uint64_t entry = (uint64_t)apic_id() << 56 | IOAPIC_LEVEL | (VECTOR + device);
    ioapic_route(FIRST_PIN + device, entry);
    *reg(device, STATUS) = 0;
    *reg(device, STATUS) = FOUND;
    *reg(device, STATUS) = FOUND | DRIVER;
    *reg(device, ACCEPTED_SELECT) = 0;
    *reg(device, ACCEPTED) = 0;
    *reg(device, ACCEPTED_SELECT) = 1;
    *reg(device, ACCEPTED) = 1; /* VIRTIO_F_VERSION_1 and nothing else */
    *reg(device, STATUS) = FOUND | DRIVER | FEATURES_OK;
    *reg(device, QUEUE_SELECT) = 0;
    *reg(device, QUEUE_SIZE) = ENTRIES;
    set_address(device, TABLE, queue->table);
    set_address(device, AVAILABLE, &queue->available);
    set_address(device, USED, &queue->used);
    *reg(device, QUEUE_READY) = 1;
    *reg(device, STATUS) = FOUND | DRIVER | FEATURES_OK | DRIVER_OK;
    return *reg(device, STATUS) == (FOUND | DRIVER | FEATURES_OK | DRIVER_OK);
}

static void describe(int device, int number, const volatile void *part, uint32_t length,
                     uint16_t flags)
{
    queues[device].table[number] =
        (struct descriptor){(uint64_t)part, length, flags, number + 1};
}

/* Offers the chain that begins at descriptor 0; whether its interrupt came. */
static bool offer(int device)
{
    struct queue *queue = &queues[device];
    uint32_t before = interrupts[device];
    queue->available.entries[queue->available.index % ENTRIES] = 0;
    queue->available.index++;
    *reg(device, NOTIFY) = 0;
    return wait_for(&interrupts[device], before + 1, MS);
}

static bool disk(uint32_t type, uint64_t sector, uint32_t length)
{
    header.type = type;
    header.sector = sector;
    status = UNTOUCHED;
    describe(DISK, 0, &header, sizeof header, NEXT);
    describe(DISK, 1, data, length, NEXT | (type == READ ? WRITABLE_PART : 0));
    describe(DISK, length ? 2 : 1, &status, 1, WRITABLE_PART);
    return offer(DISK);
}

static bool all_are(uint8_t byte, uint32_t start, uint32_t count)
{
    for (uint32_t i = start; i < start + count; i++)
        if (data[i] != byte)
            return false;
    return true;
}

CHECK(devices_are_there)
{
    for (int device = DISK; device <= RNG; device++) {
        EXPECT(*reg(device, MAGIC) == 0x74726976, "magic %x", (uint64_t)*reg(device, MAGIC));
        EXPECT(*reg(device, VERSION) == 2, "version %u", (uint64_t)*reg(device, VERSION));
    }
    EXPECT(*reg(DISK, ID) == 2, "id %u", (uint64_t)*reg(DISK, ID));
    EXPECT(*reg(RNG, ID) == 4, "id %u", (uint64_t)*reg(RNG, ID));
    EXPECT(*reg(DISK, CONFIG) == DISK_SIZE, "%u sectors", (uint64_t)*reg(DISK, CONFIG));
    EXPECT(*(volatile uint8_t *)reg(DISK, CONFIG) == DISK_SIZE, "as a byte it is another");
}

CHECK(disk_is_read)
{
    EXPECT(set_up(DISK), "status %x", (uint64_t)*reg(DISK, STATUS));
    EXPECT(disk(READ, 5, 1024), "no interrupt, used index %u", (uint64_t)queues[DISK].used.index);
    EXPECT(status == 0, "status %u", (uint64_t)status);
    EXPECT(all_are(5, 0, 512) && all_are(6, 512, 512), "%x %x", (uint64_t)data[0],
           (uint64_t)data[512]);
    EXPECT(queues[DISK].used.entries[0].length == 1025, "%u bytes",
           (uint64_t)queues[DISK].used.entries[0].length);
}

CHECK(disk_is_written)
{
    EXPECT(set_up(DISK), "status %x", (uint64_t)*reg(DISK, STATUS));
    memset(data, 0xa5, 512);
    EXPECT(disk(WRITE, 9, 512) && status == 0, "write: status %u", (uint64_t)status);
    EXPECT(disk(FLUSH, 0, 0) && status == 0, "flush: status %u", (uint64_t)status);
    memset(data, 0, sizeof data);
    EXPECT(disk(READ, 8, 1024) && status == 0, "read: status %u", (uint64_t)status);
    EXPECT(all_are(8, 0, 512) && all_are(0xa5, 512, 512), "%x %x", (uint64_t)data[0],
           (uint64_t)data[512]);
}

CHECK(disk_has_an_end)
{
    EXPECT(set_up(DISK), "status %x", (uint64_t)*reg(DISK, STATUS));
    EXPECT(disk(READ, DISK_SIZE - 1, 1024), "no interrupt");
    EXPECT(status == 1, "status %u", (uint64_t)status);
}

CHECK(each_request_is_one_interrupt)
{
    EXPECT(set_up(DISK), "status %x", (uint64_t)*reg(DISK, STATUS));
    for (uint32_t n = 1; n <= 20; n++) {
        EXPECT(disk(READ, n, 512), "none came for request %u", (uint64_t)n);
        EXPECT(!wait_for(&interrupts[DISK], n + 1, 1), "two came for request %u", (uint64_t)n);
    }
    EXPECT(reasons[DISK] == 1, "reasons %x", (uint64_t)reasons[DISK]);
}

CHECK(random_numbers)
{
    static uint8_t numbers[2][32];
    EXPECT(set_up(RNG), "status %x", (uint64_t)*reg(RNG, STATUS));
    for (int i = 0; i < 2; i++) {
        describe(RNG, 0, numbers[i], sizeof numbers[i], WRITABLE_PART);
        EXPECT(offer(RNG), "no interrupt");
    }
    EXPECT(memcmp(numbers[0], numbers[1], sizeof numbers[0]), "twice the same");
}

CHECK(broken_driver_is_told_and_can_begin_again)
{
    EXPECT(set_up(RNG), "status %x", (uint64_t)*reg(RNG, STATUS));
    describe(RNG, 0, data, 16, NEXT | WRITABLE_PART);
    queues[RNG].table[0].next = 0;
    EXPECT(offer(RNG), "no interrupt");
    EXPECT(reasons[RNG] == 2, "reasons %x", (uint64_t)reasons[RNG]);
    EXPECT(*reg(RNG, STATUS) & NEEDS_RESET, "status %x", (uint64_t)*reg(RNG, STATUS));
    EXPECT(set_up(RNG), "after a reset: status %x", (uint64_t)*reg(RNG, STATUS));
    describe(RNG, 0, data, 16, WRITABLE_PART);
    EXPECT(offer(RNG) && reasons[RNG] == 1, "after a reset: reasons %x", (uint64_t)reasons[RNG]);
}

CHECK(requests_without_end)
{
    SKIP_UNLESS(argument("forever"), "only for who saves the guest in the midst of it");
    EXPECT(set_up(DISK), "status %x", (uint64_t)*reg(DISK, STATUS));
    for (uint32_t n = 0;; n++) {
        uint32_t sector = n % DISK_SIZE;
        memset(data, 0xee, sizeof data);
        EXPECT(disk(READ, sector, 512), "request %u: no interrupt", (uint64_t)n);
        EXPECT(status == 0 && all_are(sector, 0, 512), "request %u: status %u, %x", (uint64_t)n,
               (uint64_t)status, (uint64_t)data[0]);
        if (n % 16 == 15)
            print("%u requests\n", (uint64_t)(n + 1));
    }
}
