/* A 16550A UART: output collected for Python, input pushed by Python. */
#ifndef CPUFW_UART16550_H
#define CPUFW_UART16550_H

#include "run.h"

enum {
    CPUFW_UART_PORTS = 8,
    CPUFW_UART_OUTPUT = 65536,
    CPUFW_UART_INPUT = 4096,
};

struct cpufw_uart;

struct cpufw_uart *cpufw_uart_new(void);
void cpufw_uart_free(struct cpufw_uart *uart);
/* Puts it on the bus, whose life the UART must outlast; returns as cpufw_bus_add does. */
int cpufw_uart_attach(struct cpufw_uart *uart, struct cpufw_bus *bus, int space, uint64_t base);

/* Moves up to `size` bytes of output into `buffer`; returns how many. */
size_t cpufw_uart_drain(struct cpufw_uart *uart, uint8_t *buffer, size_t size);
/* Queues input; returns how many bytes there was room for. */
size_t cpufw_uart_push(struct cpufw_uart *uart, const uint8_t *data, size_t size);
/* An eventfd to write to whenever the interrupt line rises; -1 for none. Not owned. */
void cpufw_uart_set_irq_fd(struct cpufw_uart *uart, int fd);

#endif
