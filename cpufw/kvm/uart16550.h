/* A 16550A UART: output collected for Python, input pushed by Python. */
#ifndef CPUFW_UART16550_H
#define CPUFW_UART16550_H

#include "run.h"

enum {
    CPUFW_UART_PORTS = 8,
    CPUFW_UART_OUTPUT = 65536,
    CPUFW_UART_OVERFLOW = 4096, /* beyond it, for vCPUs that cannot wait */
    CPUFW_UART_INPUT = 4096,
    CPUFW_UART_FIFO = 16,
    CPUFW_UART_BREAK = 0x100, /* a character of this value is the line held at space */
};

/* All that a guest can see of it, but output that was not drained. */
struct cpufw_uart_state {
    uint8_t ier, fcr, lcr, mcr, scr;
    uint8_t divisor[2];
    uint8_t line_errors;  /* overrun and break, as in LSR, until it is read */
    uint8_t modem_deltas; /* bits 0 to 3 of MSR, until it is read */
    uint8_t modem_lines;  /* bits 4 to 7 of MSR */
    uint8_t thr_empty;    /* the transmitter ran empty, and IIR has not said so yet */
    uint8_t rts_used;     /* the guest has raised RTS since the reset */
    uint8_t line;         /* of the interrupt */
    uint32_t fifo_length;
    uint32_t input_length; /* on its way to the receiver */
    uint16_t fifo[CPUFW_UART_FIFO];
    uint16_t input[CPUFW_UART_INPUT];
};

struct cpufw_uart;

struct cpufw_uart *cpufw_uart_new(void);
void cpufw_uart_free(struct cpufw_uart *uart);
/* Puts it on the bus, whose life the UART must outlast; returns as cpufw_bus_add does. */
int cpufw_uart_attach(struct cpufw_uart *uart, struct cpufw_bus *bus, int space, uint64_t base);

/* Moves up to `size` bytes of output into `buffer`; returns how many. */
size_t cpufw_uart_drain(struct cpufw_uart *uart, uint8_t *buffer, size_t size);
/* Bytes of output that wait. */
size_t cpufw_uart_waiting(struct cpufw_uart *uart);
/* Lets output vanish instead of waiting. */
void cpufw_uart_discard(struct cpufw_uart *uart, int on);
/* Queues input; returns how many bytes there was room for. */
size_t cpufw_uart_push(struct cpufw_uart *uart, const uint8_t *data, size_t size);
/* Queues a break behind the input; 0 when there is no room. */
int cpufw_uart_push_break(struct cpufw_uart *uart);
/* Whether the guest wants received data by interrupt. */
int cpufw_uart_receives_by_interrupt(struct cpufw_uart *uart);

/* Eventfds to write to, -1 for none, not owned: whenever the interrupt line rises; */
void cpufw_uart_set_irq_fd(struct cpufw_uart *uart, int fd);
/* when output begins to wait (the run loop then comes back only if there is no room for more); */
void cpufw_uart_set_output_fd(struct cpufw_uart *uart, int fd);
/* when there is room again for input of which some was refused. */
void cpufw_uart_set_room_fd(struct cpufw_uart *uart, int fd);

void cpufw_uart_reset(struct cpufw_uart *uart);
void cpufw_uart_get_state(struct cpufw_uart *uart, struct cpufw_uart_state *state);
/* -EINVAL, with nothing changed, for lengths that are out of range. */
int cpufw_uart_set_state(struct cpufw_uart *uart, const struct cpufw_uart_state *state);

#endif
