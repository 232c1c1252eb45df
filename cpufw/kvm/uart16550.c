/* Registers and bits: National Semiconductor PC16550D data sheet, section 8. Characters take no
 * time: the transmitter is empty again at once, and a FIFO below its trigger level has timed out
 * as soon as nothing more is on its way. */
#include "uart16550.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR };

enum {
    IER_RECEIVED = 0x01, IER_THR_EMPTY = 0x02, IER_LINE_STATUS = 0x04, IER_MODEM_STATUS = 0x08,
    IER_WRITABLE = 0x0f,
    IIR_MODEM_STATUS = 0x00, IIR_NONE = 0x01, IIR_THR_EMPTY = 0x02, IIR_RECEIVED = 0x04,
    IIR_LINE_STATUS = 0x06, IIR_TIMEOUT = 0x0c, IIR_FIFOS = 0xc0,
    FCR_ENABLE = 0x01, FCR_CLEAR_RECEIVER = 0x02, FCR_KEPT = 0xc9,
    LCR_DLAB = 0x80,
    MCR_DTR = 0x01, MCR_RTS = 0x02, MCR_OUT1 = 0x04, MCR_OUT2 = 0x08, MCR_LOOP = 0x10,
    MCR_WRITABLE = 0x1f,
    LSR_DATA_READY = 0x01, LSR_OVERRUN = 0x02, LSR_BREAK = 0x10, LSR_THR_EMPTY = 0x20,
    LSR_TRANSMITTER_EMPTY = 0x40, LSR_ERROR_IN_FIFO = 0x80,
    MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80,
    MSR_RI_ENDED = 0x04, /* of the deltas, the only one that tells one direction */
};

enum { FULL_ENOUGH = CPUFW_UART_OUTPUT / 4 * 3, LINE_INTERVAL_MS = 20 };

struct cpufw_uart {
    pthread_mutex_t lock;
    struct cpufw_uart_state s; /* but its input, which is the ring below */
    uint16_t input[CPUFW_UART_INPUT];
    size_t input_start;
    int irq_fd, output_fd, room_fd;
    int refused_input;
    int discard;

    size_t output_length;
    int output_told;    /* output_fd was written to since the last drain */
    int has_line;       /* the output holds a newline */
    int64_t drained_at; /* milliseconds */
    int overflow;       /* the next byte is taken though there is no room */
    uint8_t output[CPUFW_UART_OUTPUT + CPUFW_UART_OVERFLOW];
};

static int64_t milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now); /* its few ms of error do not matter here */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void signal_fd(int fd)
{
    uint64_t one = 1;
    /* An eventfd fails only when it is full, and then it has been signalled already. */
    ssize_t written = fd >= 0 ? write(fd, &one, sizeof one) : 0;
    (void)written;
}

/* ---- interrupts ---- */

static unsigned trigger_level(const struct cpufw_uart *uart)
{
    static const uint8_t levels[] = {1, 4, 8, 14};
    return uart->s.fcr & FCR_ENABLE ? levels[uart->s.fcr >> 6] : 1;
}

static uint8_t pending_interrupt(const struct cpufw_uart *uart)
{
    const struct cpufw_uart_state *s = &uart->s;
    if (s->ier & IER_LINE_STATUS && s->line_errors)
        return IIR_LINE_STATUS;
    if (s->ier & IER_RECEIVED && s->fifo_length)
        return s->fifo_length >= trigger_level(uart) ? IIR_RECEIVED : IIR_TIMEOUT;
    if (s->ier & IER_THR_EMPTY && s->thr_empty)
        return IIR_THR_EMPTY;
    if (s->ier & IER_MODEM_STATUS && s->modem_deltas)
        return IIR_MODEM_STATUS;
    return IIR_NONE;
}

static void update_irq(struct cpufw_uart *uart)
{
    /* On a PC OUT2 lets the interrupt through to the controller, and the pin OUT2 is off in
     * loopback mode, whatever MCR holds. */
    int gate = (uart->s.mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;
    int line = gate && pending_interrupt(uart) != IIR_NONE;
    if (line && !uart->s.line)
        signal_fd(uart->irq_fd);
    uart->s.line = line;
}

/* ---- receiver ---- */

static unsigned fifo_size(const struct cpufw_uart *uart)
{
    return uart->s.fcr & FCR_ENABLE ? CPUFW_UART_FIFO : 1;
}

/* LSR tells the break once the character is the next to be read. */
static void show_break(struct cpufw_uart_state *s)
{
    if (s->fifo_length && s->fifo[0] & CPUFW_UART_BREAK) {
        s->line_errors |= LSR_BREAK;
        s->fifo[0] = 0;
    }
}

static void receive_into_fifo(struct cpufw_uart *uart, uint16_t character)
{
    struct cpufw_uart_state *s = &uart->s;
    if (s->fifo_length == fifo_size(uart)) {
        s->line_errors |= LSR_OVERRUN;
        if (s->fcr & FCR_ENABLE)
            return; /* a full FIFO keeps what it has, the single register does not */
        s->fifo_length--;
    }
    s->fifo[s->fifo_length++] = character;
    show_break(s);
}

/* A guest that uses RTS and takes interrupts holds the sender back with it; one that polls is
 * its own measure. */
static int sender_held(const struct cpufw_uart *uart)
{
    const struct cpufw_uart_state *s = &uart->s;
    return s->mcr & MCR_LOOP ||
           (s->rts_used && s->ier & IER_RECEIVED && !(s->mcr & MCR_RTS));
}

static void receive_from_line(struct cpufw_uart *uart)
{
    struct cpufw_uart_state *s = &uart->s;
    if (sender_held(uart))
        return;
    while (s->input_length && s->fifo_length < fifo_size(uart)) {
        receive_into_fifo(uart, uart->input[uart->input_start]);
        uart->input_start = (uart->input_start + 1) % CPUFW_UART_INPUT;
        s->input_length--;
    }
    if (uart->refused_input && s->input_length <= CPUFW_UART_INPUT / 2) {
        uart->refused_input = 0;
        signal_fd(uart->room_fd);
    }
}

static int queue_input(struct cpufw_uart *uart, uint16_t character)
{
    struct cpufw_uart_state *s = &uart->s;
    if (s->input_length == CPUFW_UART_INPUT) {
        uart->refused_input = 1;
        return 0;
    }
    uart->input[(uart->input_start + s->input_length++) % CPUFW_UART_INPUT] = character;
    return 1;
}

static uint8_t read_rbr(struct cpufw_uart_state *s)
{
    if (!s->fifo_length)
        return 0;
    uint8_t byte = s->fifo[0];
    memmove(s->fifo, s->fifo + 1, --s->fifo_length * sizeof *s->fifo);
    show_break(s);
    return byte;
}

/* ---- transmitter ---- */

static int transmit(struct cpufw_uart *uart, uint8_t byte)
{
    int result = CPUFW_DEVICE_DONE;
    if (uart->s.mcr & MCR_LOOP) {
        receive_into_fifo(uart, byte);
    } else if (!uart->discard) {
        if (uart->output_length >= CPUFW_UART_OUTPUT && !uart->overflow)
            return CPUFW_DEVICE_FULL;
        uart->overflow = 0;
        if (uart->output_length < sizeof uart->output) /* or it is lost */
            uart->output[uart->output_length++] = byte;
        uart->has_line |= byte == '\n';
        if (uart->output_fd >= 0) {
            if (!uart->output_told)
                signal_fd(uart->output_fd);
            uart->output_told = 1;
        } else if (uart->output_length >= FULL_ENOUGH ||
                   (uart->has_line && milliseconds() - uart->drained_at >= LINE_INTERVAL_MS)) {
            result = CPUFW_DEVICE_READY;
        }
    }
    /* The write took the interrupt back and, when the byte is out, it comes anew: an edge also
     * for a guest that answers an interrupt with the next byte and never reads IIR. */
    uart->s.thr_empty = 0;
    update_irq(uart);
    uart->s.thr_empty = 1;
    return result;
}

/* ---- registers ---- */

static uint8_t read_iir(struct cpufw_uart_state *s, uint8_t source)
{
    if (source == IIR_THR_EMPTY)
        s->thr_empty = 0; /* reading IIR acknowledges this source */
    return source | (s->fcr & FCR_ENABLE ? IIR_FIFOS : 0);
}

static uint8_t read_lsr(struct cpufw_uart_state *s)
{
    uint8_t value = LSR_THR_EMPTY | LSR_TRANSMITTER_EMPTY | s->line_errors |
                    (s->fifo_length ? LSR_DATA_READY : 0);
    if (s->fcr & FCR_ENABLE) {
        int error = s->line_errors & LSR_BREAK;
        for (uint32_t i = 0; i < s->fifo_length; i++)
            error |= s->fifo[i] & CPUFW_UART_BREAK;
        value |= error ? LSR_ERROR_IN_FIFO : 0;
    }
    s->line_errors = 0;
    return value;
}

static uint8_t read_msr(struct cpufw_uart_state *s)
{
    uint8_t value = s->modem_lines | s->modem_deltas;
    s->modem_deltas = 0;
    return value;
}

static uint8_t read_register(struct cpufw_uart *uart, uint64_t number)
{
    struct cpufw_uart_state *s = &uart->s;
    int dlab = s->lcr & LCR_DLAB;
    switch (number) {
    case RBR_THR: return dlab ? s->divisor[0] : read_rbr(s);
    case IER:     return dlab ? s->divisor[1] : s->ier;
    case IIR_FCR: return read_iir(s, pending_interrupt(uart));
    case LCR:     return s->lcr;
    case MCR:     return s->mcr;
    case LSR:     return read_lsr(s);
    case MSR:     return read_msr(s);
    case SCR:     return s->scr;
    }
    return 0xff;
}

static uint8_t modem_lines(uint8_t mcr)
{
    if (!(mcr & MCR_LOOP))
        return MSR_CTS | MSR_DSR | MSR_DCD; /* the other end is always there */
    return (mcr & MCR_RTS ? MSR_CTS : 0) | (mcr & MCR_DTR ? MSR_DSR : 0) |
           (mcr & MCR_OUT1 ? MSR_RI : 0) | (mcr & MCR_OUT2 ? MSR_DCD : 0);
}

static void write_mcr(struct cpufw_uart_state *s, uint8_t value)
{
    s->mcr = value & MCR_WRITABLE;
    s->rts_used |= (value & (MCR_RTS | MCR_LOOP)) == MCR_RTS;
    uint8_t lines = modem_lines(s->mcr), changed = lines ^ s->modem_lines;
    s->modem_deltas |= (changed & ~MSR_RI) >> 4;
    if (changed & MSR_RI && !(lines & MSR_RI))
        s->modem_deltas |= MSR_RI_ENDED;
    s->modem_lines = lines;
}

static void write_fcr(struct cpufw_uart_state *s, uint8_t value)
{
    if (!(value & FCR_ENABLE))
        value = 0; /* without it the other bits are not taken */
    if ((s->fcr ^ value) & FCR_ENABLE || value & FCR_CLEAR_RECEIVER) {
        s->fifo_length = 0;
        s->line_errors = 0;
    }
    s->fcr = value & FCR_KEPT;
}

static int write_register(struct cpufw_uart *uart, uint64_t number, uint8_t value)
{
    struct cpufw_uart_state *s = &uart->s;
    int dlab = s->lcr & LCR_DLAB;
    switch (number) {
    case RBR_THR:
        if (!dlab)
            return transmit(uart, value);
        s->divisor[0] = value;
        break;
    case IER:
        if (dlab) {
            s->divisor[1] = value;
            break;
        }
        if (value & ~s->ier & IER_THR_EMPTY)
            s->thr_empty = 1; /* enabling it while the transmitter is empty raises it */
        s->ier = value & IER_WRITABLE;
        break;
    case IIR_FCR: write_fcr(s, value); break;
    case LCR:     s->lcr = value; break;
    case MCR:     write_mcr(s, value); break;
    case SCR:     s->scr = value; break;
    }
    /* What a guest clears out of the FIFO while it sets the port up shall not be followed at
     * once by more of the input: that comes with the next access, or now if it is waited for. */
    if (number != IIR_FCR || s->ier & IER_RECEIVED)
        receive_from_line(uart);
    return CPUFW_DEVICE_DONE;
}

/* A wide access is one of each register it covers; only its first byte may find the UART full,
 * because the others are never the transmitter. */
static int uart_read(void *device, uint64_t offset, unsigned size, uint8_t *data)
{
    struct cpufw_uart *uart = device;
    pthread_mutex_lock(&uart->lock);
    for (unsigned i = 0; i < size; i++) {
        receive_from_line(uart);
        data[i] = read_register(uart, offset + i);
    }
    receive_from_line(uart);
    update_irq(uart);
    pthread_mutex_unlock(&uart->lock);
    return CPUFW_DEVICE_DONE;
}

static int uart_write(void *device, uint64_t offset, unsigned size, const uint8_t *data)
{
    struct cpufw_uart *uart = device;
    int result = CPUFW_DEVICE_DONE;
    pthread_mutex_lock(&uart->lock);
    for (unsigned i = 0; i < size && !(result & CPUFW_DEVICE_FULL); i++)
        result |= write_register(uart, offset + i, data[i]);
    update_irq(uart);
    pthread_mutex_unlock(&uart->lock);
    return result;
}

static void uart_overflow(void *device)
{
    struct cpufw_uart *uart = device;
    pthread_mutex_lock(&uart->lock);
    uart->overflow = 1;
    pthread_mutex_unlock(&uart->lock);
}

static const struct cpufw_device_ops uart_ops = {uart_read, uart_write, uart_overflow};

/* ---- the Python side ---- */

static void power_on(struct cpufw_uart_state *s)
{
    s->ier = s->fcr = s->lcr = s->mcr = s->scr = 0;
    s->divisor[0] = 1; /* the data sheet leaves it open; 115,200 baud */
    s->divisor[1] = 0;
    s->line_errors = s->modem_deltas = s->thr_empty = s->rts_used = s->line = 0;
    s->modem_lines = modem_lines(0);
    s->fifo_length = 0;
}

struct cpufw_uart *cpufw_uart_new(void)
{
    struct cpufw_uart *uart = calloc(1, sizeof *uart);
    if (uart) {
        pthread_mutex_init(&uart->lock, NULL);
        uart->irq_fd = uart->output_fd = uart->room_fd = -1;
        power_on(&uart->s);
    }
    return uart;
}

void cpufw_uart_free(struct cpufw_uart *uart)
{
    pthread_mutex_destroy(&uart->lock);
    free(uart);
}

int cpufw_uart_attach(struct cpufw_uart *uart, struct cpufw_bus *bus, int space, uint64_t base)
{
    return cpufw_bus_add(bus, space, base, CPUFW_UART_PORTS, &uart_ops, uart);
}

size_t cpufw_uart_drain(struct cpufw_uart *uart, uint8_t *buffer, size_t size)
{
    pthread_mutex_lock(&uart->lock);
    if (size > uart->output_length)
        size = uart->output_length;
    memcpy(buffer, uart->output, size);
    uart->output_length -= size;
    memmove(uart->output, uart->output + size, uart->output_length);
    uart->has_line = uart->output_length && memchr(uart->output, '\n', uart->output_length);
    uart->output_told = uart->output_length > 0;
    uart->drained_at = milliseconds();
    pthread_mutex_unlock(&uart->lock);
    return size;
}

size_t cpufw_uart_waiting(struct cpufw_uart *uart)
{
    pthread_mutex_lock(&uart->lock);
    size_t length = uart->output_length;
    pthread_mutex_unlock(&uart->lock);
    return length;
}

void cpufw_uart_discard(struct cpufw_uart *uart, int on)
{
    pthread_mutex_lock(&uart->lock);
    uart->discard = on;
    pthread_mutex_unlock(&uart->lock);
}

size_t cpufw_uart_push(struct cpufw_uart *uart, const uint8_t *data, size_t size)
{
    size_t taken = 0;
    pthread_mutex_lock(&uart->lock);
    while (taken < size && queue_input(uart, data[taken]))
        taken++;
    receive_from_line(uart);
    update_irq(uart);
    pthread_mutex_unlock(&uart->lock);
    return taken;
}

int cpufw_uart_push_break(struct cpufw_uart *uart)
{
    pthread_mutex_lock(&uart->lock);
    int taken = queue_input(uart, CPUFW_UART_BREAK);
    receive_from_line(uart);
    update_irq(uart);
    pthread_mutex_unlock(&uart->lock);
    return taken;
}

int cpufw_uart_receives_by_interrupt(struct cpufw_uart *uart)
{
    pthread_mutex_lock(&uart->lock);
    int wanted = uart->s.ier & IER_RECEIVED;
    pthread_mutex_unlock(&uart->lock);
    return wanted;
}

void cpufw_uart_set_irq_fd(struct cpufw_uart *uart, int fd)
{
    pthread_mutex_lock(&uart->lock);
    uart->irq_fd = fd;
    uart->s.line = 0;
    update_irq(uart);
    pthread_mutex_unlock(&uart->lock);
}

void cpufw_uart_set_output_fd(struct cpufw_uart *uart, int fd)
{
    pthread_mutex_lock(&uart->lock);
    uart->output_fd = fd;
    uart->output_told = uart->output_length > 0;
    if (uart->output_told)
        signal_fd(fd);
    pthread_mutex_unlock(&uart->lock);
}

void cpufw_uart_set_room_fd(struct cpufw_uart *uart, int fd)
{
    pthread_mutex_lock(&uart->lock);
    uart->room_fd = fd;
    pthread_mutex_unlock(&uart->lock);
}

void cpufw_uart_reset(struct cpufw_uart *uart)
{
    pthread_mutex_lock(&uart->lock);
    power_on(&uart->s);
    pthread_mutex_unlock(&uart->lock);
}

void cpufw_uart_get_state(struct cpufw_uart *uart, struct cpufw_uart_state *state)
{
    pthread_mutex_lock(&uart->lock);
    *state = uart->s;
    for (uint32_t i = 0; i < state->input_length; i++)
        state->input[i] = uart->input[(uart->input_start + i) % CPUFW_UART_INPUT];
    pthread_mutex_unlock(&uart->lock);
}

int cpufw_uart_set_state(struct cpufw_uart *uart, const struct cpufw_uart_state *state)
{
    if (state->fifo_length > CPUFW_UART_FIFO || state->input_length > CPUFW_UART_INPUT)
        return -EINVAL;
    pthread_mutex_lock(&uart->lock);
    uart->s = *state;
    memcpy(uart->input, state->input, sizeof uart->input);
    uart->input_start = 0;
    if (uart->s.line) /* its edge may have been on its way when the state was taken */
        signal_fd(uart->irq_fd);
    pthread_mutex_unlock(&uart->lock);
    return 0;
}
