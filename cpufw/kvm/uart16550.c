/* Registers and bits: National Semiconductor PC16550D data sheet, section 8. */
#include "uart16550.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR };

enum {
    IER_RECEIVED = 0x01, IER_THR_EMPTY = 0x02, IER_WRITABLE = 0x0f,
    IIR_NONE = 0x01, IIR_THR_EMPTY = 0x02, IIR_RECEIVED = 0x04, IIR_FIFOS = 0xc0,
    FCR_ENABLE = 0x01, FCR_CLEAR_RECEIVER = 0x02,
    LCR_DLAB = 0x80,
    MCR_DTR = 0x01, MCR_RTS = 0x02, MCR_OUT1 = 0x04, MCR_OUT2 = 0x08, MCR_LOOP = 0x10,
    MCR_WRITABLE = 0x1f,
    LSR_DATA_READY = 0x01, LSR_THR_EMPTY = 0x20, LSR_TRANSMITTER_EMPTY = 0x40,
    MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80,
};

enum { FULL_ENOUGH = CPUFW_UART_OUTPUT / 4 * 3, LINE_INTERVAL_MS = 20 };

struct cpufw_uart {
    pthread_mutex_t lock;
    uint8_t ier, fcr, lcr, mcr, scr;
    uint8_t divisor[2];
    int thr_interrupt; /* the transmitter ran empty and IIR has not reported it yet */
    int irq_level, irq_fd;

    size_t input_start, input_length;
    size_t output_length;
    int has_line;      /* the output holds a newline */
    int64_t drained_at; /* milliseconds */
    uint8_t input[CPUFW_UART_INPUT];
    uint8_t output[CPUFW_UART_OUTPUT];
};

static int64_t milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now); /* its few ms of error do not matter here */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- interrupts ---- */

static uint8_t pending_interrupt(const struct cpufw_uart *uart)
{
    if (uart->ier & IER_RECEIVED && uart->input_length)
        return IIR_RECEIVED;
    if (uart->ier & IER_THR_EMPTY && uart->thr_interrupt)
        return IIR_THR_EMPTY;
    return IIR_NONE;
}

static void update_irq(struct cpufw_uart *uart)
{
    int level = pending_interrupt(uart) != IIR_NONE;
    if (level && !uart->irq_level && uart->irq_fd >= 0) {
        uint64_t one = 1;
        /* An eventfd fails only when it is full, and then the edge is pending already. */
        ssize_t written = write(uart->irq_fd, &one, sizeof one);
        (void)written;
    }
    uart->irq_level = level;
}

/* ---- data ---- */

static size_t queue_input(struct cpufw_uart *uart, const uint8_t *data, size_t size)
{
    size_t room = CPUFW_UART_INPUT - uart->input_length;
    if (size > room)
        size = room;
    for (size_t i = 0; i < size; i++)
        uart->input[(uart->input_start + uart->input_length + i) % CPUFW_UART_INPUT] = data[i];
    uart->input_length += size;
    return size;
}

static uint8_t receive(struct cpufw_uart *uart)
{
    if (!uart->input_length)
        return 0;
    uint8_t byte = uart->input[uart->input_start];
    uart->input_start = (uart->input_start + 1) % CPUFW_UART_INPUT;
    uart->input_length--;
    return byte;
}

static int transmit(struct cpufw_uart *uart, uint8_t byte)
{
    if (uart->mcr & MCR_LOOP) {
        queue_input(uart, &byte, 1);
    } else {
        if (uart->output_length == CPUFW_UART_OUTPUT)
            return CPUFW_DEVICE_FULL;
        uart->output[uart->output_length++] = byte;
        uart->has_line |= byte == '\n';
    }
    uart->thr_interrupt = 1; /* sent in no time at all */
    if (uart->output_length >= FULL_ENOUGH ||
        (uart->has_line && milliseconds() - uart->drained_at >= LINE_INTERVAL_MS))
        return CPUFW_DEVICE_READY;
    return CPUFW_DEVICE_DONE;
}

/* ---- registers ---- */

static uint8_t read_iir(struct cpufw_uart *uart)
{
    uint8_t source = pending_interrupt(uart);
    if (source == IIR_THR_EMPTY)
        uart->thr_interrupt = 0; /* reading IIR acknowledges this source */
    return source | (uart->fcr & FCR_ENABLE ? IIR_FIFOS : 0);
}

static uint8_t modem_status(const struct cpufw_uart *uart)
{
    if (!(uart->mcr & MCR_LOOP))
        return MSR_CTS | MSR_DSR | MSR_DCD;
    return (uart->mcr & MCR_RTS ? MSR_CTS : 0) | (uart->mcr & MCR_DTR ? MSR_DSR : 0) |
           (uart->mcr & MCR_OUT1 ? MSR_RI : 0) | (uart->mcr & MCR_OUT2 ? MSR_DCD : 0);
}

static uint8_t read_register(struct cpufw_uart *uart, uint64_t number)
{
    int dlab = uart->lcr & LCR_DLAB;
    switch (number) {
    case RBR_THR: return dlab ? uart->divisor[0] : receive(uart);
    case IER:     return dlab ? uart->divisor[1] : uart->ier;
    case IIR_FCR: return read_iir(uart);
    case LCR:     return uart->lcr;
    case MCR:     return uart->mcr;
    case LSR:
        return LSR_THR_EMPTY | LSR_TRANSMITTER_EMPTY | (uart->input_length ? LSR_DATA_READY : 0);
    case MSR:     return modem_status(uart);
    case SCR:     return uart->scr;
    }
    return 0xff;
}

static int write_register(struct cpufw_uart *uart, uint64_t number, uint8_t value)
{
    int dlab = uart->lcr & LCR_DLAB;
    switch (number) {
    case RBR_THR:
        if (!dlab)
            return transmit(uart, value);
        uart->divisor[0] = value;
        break;
    case IER:
        if (dlab) {
            uart->divisor[1] = value;
            break;
        }
        if (value & ~uart->ier & IER_THR_EMPTY)
            uart->thr_interrupt = 1; /* enabling it while the transmitter is empty raises it */
        uart->ier = value & IER_WRITABLE;
        break;
    case IIR_FCR:
        uart->fcr = value;
        if (value & FCR_CLEAR_RECEIVER)
            uart->input_length = 0;
        break;
    case LCR: uart->lcr = value; break;
    case MCR: uart->mcr = value & MCR_WRITABLE; break;
    case SCR: uart->scr = value; break;
    }
    return CPUFW_DEVICE_DONE;
}

/* A wide access is one of each register it covers; only its first byte may find the UART full,
 * because the others are never the transmitter. */
static int uart_read(void *device, uint64_t offset, unsigned size, uint8_t *data)
{
    struct cpufw_uart *uart = device;
    pthread_mutex_lock(&uart->lock);
    for (unsigned i = 0; i < size; i++)
        data[i] = read_register(uart, offset + i);
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

static const struct cpufw_device_ops uart_ops = {.read = uart_read, .write = uart_write};

/* ---- the Python side ---- */

struct cpufw_uart *cpufw_uart_new(void)
{
    struct cpufw_uart *uart = calloc(1, sizeof *uart);
    if (uart) {
        pthread_mutex_init(&uart->lock, NULL);
        uart->irq_fd = -1;
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
    uart->drained_at = milliseconds();
    pthread_mutex_unlock(&uart->lock);
    return size;
}

size_t cpufw_uart_push(struct cpufw_uart *uart, const uint8_t *data, size_t size)
{
    pthread_mutex_lock(&uart->lock);
    size = queue_input(uart, data, size);
    update_irq(uart);
    pthread_mutex_unlock(&uart->lock);
    return size;
}

void cpufw_uart_set_irq_fd(struct cpufw_uart *uart, int fd)
{
    pthread_mutex_lock(&uart->lock);
    uart->irq_fd = fd;
    uart->irq_level = 0;
    update_irq(uart);
    pthread_mutex_unlock(&uart->lock);
}
