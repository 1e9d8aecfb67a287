// The node's applications: StatsD clients that read only the two variables:
//   app          sends `app.ticks:1|c` ten times a second, and the number sent so far as the gauge `app.sent`: the
//                difference is the number of lost datagrams
//   nc -u ...    sends standard input as one datagram; replaces netcat, which this system's busybox lacks
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int connected(const char *host, const char *port) {
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 0)};
    if (host && inet_pton(AF_INET, host, &to.sin_addr) == 1) connect(s, (void *)&to, sizeof to);
    return s;
}

static int send_input(const char *host, const char *port) {
    char text[65536];
    size_t length = fread(text, 1, sizeof text, stdin);
    return send(connected(host, port), text, length, 0) < 0;
}

int main(int argc, char **argv) {
    const char *name = strrchr(argv[0], '/');
    if (!strcmp(name ? name + 1 : argv[0], "nc")) return argc < 3 ? 2 : send_input(argv[argc - 2], argv[argc - 1]);
    const char *host = getenv("STATSD_UDP_HOST"), *port = getenv("STATSD_UDP_PORT");
    printf("host=%s port=%s\n", host ? host : "-", port ? port : "-");
    fflush(stdout);
    int s = connected(host, port);
    for (unsigned long n = 1;; n++) {
        char line[64];
        int length = snprintf(line, sizeof line, "app.ticks:1|c\napp.sent:%lu|g", n);
        send(s, line, length, 0);
        usleep(100000);
    }
}
