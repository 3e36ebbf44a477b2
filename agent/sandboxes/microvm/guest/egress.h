/* The guest's end of the door, see egress.c. */
#ifndef EGRESS_H
#define EGRESS_H

/* Starts it as a process of its own. `open_port` finds a virtio-serial port by name; `root` is a descriptor of the system's folder. */
void egress_start(int (*open_port)(const char *), int root);

/* Is it: serves on an open port. For trying it without a machine. */
void egress_serve(int port, int root);

#endif
