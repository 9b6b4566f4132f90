/* udp echo IP PORT            answers every datagram with itself, until it is ended
 * udp ping IP PORT N SECONDS  N sockets, one datagram on each at a time; prints
 *                             "<round trips> <lost>"; a datagram is lost after 500 ms
 * As small as it can be, so that the load balancer between the two is what is measured. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64, MOST = 4096 };
static const double LOST_AFTER_S = 0.5;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int udp_socket(int flags) {
    int fd = socket(AF_INET, SOCK_DGRAM | flags, 0), bytes = 4 << 20;
    if (fd < 0) { perror("socket"); exit(1); }
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    return fd;
}

static void echo(struct sockaddr_in *place) {
    char data[65536];
    int fd = udp_socket(0);
    if (bind(fd, (struct sockaddr *)place, sizeof *place)) { perror("bind"); exit(1); }
    for (;;) {
        struct sockaddr_in from;
        socklen_t length = sizeof from;
        ssize_t got = recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&from, &length);
        if (got >= 0) sendto(fd, data, got, 0, (struct sockaddr *)&from, length);
    }
}

static void ping(struct sockaddr_in *place, int count, double seconds) {
    static int fds[MOST];
    static double sent[MOST];
    char data[SIZE] = "ping";
    long done = 0, lost = 0;
    int poll = epoll_create1(0);
    double end = now() + seconds, sweep = now();
    for (int i = 0; i < count; i++) {
        struct epoll_event want = {.events = EPOLLIN, .data.u32 = i};
        fds[i] = udp_socket(SOCK_NONBLOCK);
        if (connect(fds[i], (struct sockaddr *)place, sizeof *place)) { perror("connect"); exit(1); }
        epoll_ctl(poll, EPOLL_CTL_ADD, fds[i], &want);
        sent[i] = now();
        send(fds[i], data, SIZE, 0);
    }
    for (double t = now(); t < end; t = now()) {
        struct epoll_event ready[256];
        int n = epoll_wait(poll, ready, 256, 100);
        t = now();
        for (int k = 0; k < n; k++) {
            int i = ready[k].data.u32;
            if (recv(fds[i], data, SIZE, 0) < 0) continue; /* an ICMP error: it counts as lost */
            done++;
            sent[i] = t;
            send(fds[i], data, SIZE, 0);
        }
        if (t - sweep > 0.1) {
            sweep = t;
            for (int i = 0; i < count; i++)
                if (t - sent[i] > LOST_AFTER_S) {
                    lost++;
                    sent[i] = t;
                    send(fds[i], data, SIZE, 0);
                }
        }
    }
    printf("%ld %ld\n", done, lost);
}

int main(int argc, char **argv) {
    struct sockaddr_in place = {.sin_family = AF_INET};
    if (argc < 4 || !inet_aton(argv[2], &place.sin_addr)) return 2;
    place.sin_port = htons(atoi(argv[3]));
    if (!strcmp(argv[1], "echo")) echo(&place);
    if (strcmp(argv[1], "ping") || argc < 6 || atoi(argv[4]) < 1 || atoi(argv[4]) > MOST) return 2;
    ping(&place, atoi(argv[4]), atof(argv[5]));
    return 0;
}
