/* Which device, port and GID a rank speaks through. A RoCE port has many GIDs: one for each of its network addresses,
 * and each of those for RoCE v1 and v2. Peers must use the same version and family, so every rank prefers alike: v2 (it
 * is routed), then the family that home networks number by hand. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/verbs_internal.h"

enum { FAMILY_IPV4, FAMILY_IPV6, FAMILY_LOCAL, N_FAMILIES, MAX_GIDS = 256 };

static const char *const family_names[N_FAMILIES] = {"ipv4", "ipv6", "local"};

/* Parses options->gid: an index (*index >= 0), a family (*family >= 0), or neither. */
static bool parse_gid(const char *text, int *index, int *family)
{
    char *end;
    *index = *family = -1;
    if (!text)
        return true;
    for (int f = 0; f < N_FAMILIES; f++) {
        if (!strcmp(text, family_names[f])) {
            *family = f;
            return true;
        }
    }
    long value = strtol(text, &end, 10);
    *index = (int)value;
    return end != text && !*end && value >= 0 && value < 65536;
}

/* "NAME" or "NAME:PORT"; *port 0: any. */
static bool parse_device(const char *text, char *name, size_t name_size, int *port)
{
    *name = '\0';
    *port = 0;
    if (!text)
        return true;
    const char *colon = strchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : strlen(text);
    if (n == 0 || n >= name_size)
        return false;
    memcpy(name, text, n);
    name[n] = '\0';
    if (colon) {
        char *end;
        long value = strtol(colon + 1, &end, 10);
        if (end == colon + 1 || *end || value < 1 || value > 255)
            return false;
        *port = (int)value;
    }
    return true;
}

static int mtu_bytes(enum ibv_mtu mtu) { return 128 << mtu; }

static bool check_options(struct verbs_transport *v)
{
    const struct verbs_options *o = &v->options;
    const int mtu = o->mtu;
    char name[sizeof v->port.name];
    int index, family, port;
    if (!parse_device(o->device, name, sizeof name, &port))
        verbs_error(v, "an RDMA device is NAME or NAME:PORT, not '%s'", o->device);
    else if (!parse_gid(o->gid, &index, &family))
        verbs_error(v, "an RDMA GID is an index, ipv4, ipv6 or local, not '%s'", o->gid);
    else if (mtu && mtu != 256 && mtu != 512 && mtu != 1024 && mtu != 2048 && mtu != 4096)
        verbs_error(v, "an RDMA MTU is 256, 512, 1024, 2048 or 4096, not %d", mtu);
    else if (o->service_level < 0 || o->service_level > 15)
        verbs_error(v, "an RDMA service level is 0 to 15, not %d", o->service_level);
    else
        return true;
    return false;
}

static int family_of(const union ibv_gid *gid)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (!memcmp(gid->raw, mapped, sizeof mapped))
        return FAMILY_IPV4;
    return gid->raw[0] == 0xfe && (gid->raw[1] & 0xc0) == 0x80 ? FAMILY_LOCAL : FAMILY_IPV6;
}

/* The best GID of the port that the options allow. */
static bool choose_gid(struct verbs_transport *v, struct verbs_port *p)
{
    struct ibv_gid_entry *entries = calloc(MAX_GIDS, sizeof *entries);
    int wanted_index, wanted_family, best = -1;
    parse_gid(v->options.gid, &wanted_index, &wanted_family);
    ssize_t n = entries ? v->calls->query_gid_table(p->context, entries, MAX_GIDS) : -1;
    for (ssize_t i = 0; i < n; i++) {
        const struct ibv_gid_entry *e = &entries[i];
        const int family = family_of(&e->gid);
        const int score = (e->gid_type == IBV_GID_TYPE_ROCE_V2) * N_FAMILIES + N_FAMILIES - 1 - family;
        if (e->port_num != p->number || (wanted_index >= 0 && (int)e->gid_index != wanted_index) ||
            (wanted_family >= 0 && family != wanted_family) || score <= best)
            continue;
        best = score;
        p->gid = e->gid;
        p->gid_index = (int)e->gid_index;
        p->gid_type = (int)e->gid_type;
        p->family = family;
    }
    free(entries);
    return best >= 0;
}

static void describe(struct verbs_port *p)
{
    char address[INET6_ADDRSTRLEN] = "";
    if (p->global && p->family == FAMILY_IPV4)
        inet_ntop(AF_INET, p->gid.raw + 12, address, sizeof address);
    else if (p->global)
        inet_ntop(AF_INET6, p->gid.raw, address, sizeof address);
    if (p->ethernet)
        snprintf(p->about, sizeof p->about, "%s port %d, RoCE %s, %s, MTU %d", p->name, p->number,
                 p->gid_type == IBV_GID_TYPE_ROCE_V2 ? "v2" : "v1", address, p->mtu);
    else
        snprintf(p->about, sizeof p->about, "%s port %d, InfiniBand, LID %u, MTU %d", p->name, p->number, p->lid,
                 p->mtu);
}

/* Whether this port of p->context will do; fills in p, or says in `why` what it lacks. */
static bool port_will_do(struct verbs_transport *v, struct verbs_port *p, char *why, size_t size)
{
    struct ibv_port_attr attr = {0};
    int e = v->calls->query_port(p->context, p->number, &attr);
    if (e) {
        snprintf(why, size, "RDMA device %s: port %d cannot be asked: %s", p->name, p->number, strerror(e));
        return false;
    }
    if (attr.state != IBV_PORT_ACTIVE) {
        snprintf(why, size, "RDMA device %s: port %d is not active: is its network interface up, its cable in?",
                 p->name, p->number);
        return false;
    }
    p->ethernet = attr.link_layer == IBV_LINK_LAYER_ETHERNET;
    p->global = p->ethernet || v->options.gid;
    p->lid = attr.lid;
    p->mtu = mtu_bytes(attr.active_mtu);
    if (v->options.mtu && v->options.mtu < p->mtu)
        p->mtu = v->options.mtu;
    if (p->global && !choose_gid(v, p)) {
        snprintf(why, size, "RDMA device %s: port %d has no GID%s%s: has its network interface an address?", p->name,
                 p->number, v->options.gid ? " " : "", v->options.gid ? v->options.gid : "");
        return false;
    }
    describe(p);
    return true;
}

/* Tries one device; its context stays open if a port of it will do. */
static bool device_will_do(struct verbs_transport *v, struct ibv_device *device, int wanted_port, char *why,
                           size_t size)
{
    struct verbs_port p = {0};
    struct ibv_device_attr attr = {0};
    snprintf(p.name, sizeof p.name, "%s", v->calls->get_device_name(device));
    p.context = v->calls->open_device(device);
    if (!p.context) {
        snprintf(why, size, "RDMA device %s cannot be opened: %s", p.name, strerror(errno));
        return false;
    }
    int e = v->calls->query_device(p.context, &attr);
    if (e)
        snprintf(why, size, "RDMA device %s cannot be asked: %s", p.name, strerror(e));
    else if (wanted_port > attr.phys_port_cnt)
        snprintf(why, size, "RDMA device %s has %d ports, not %d", p.name, attr.phys_port_cnt, wanted_port);
    for (int i = 1; !e && i <= attr.phys_port_cnt; i++) {
        p.number = (uint8_t)i;
        if ((!wanted_port || wanted_port == i) && port_will_do(v, &p, why, size)) {
            v->port = p;
            return true;
        }
    }
    v->calls->close_device(p.context);
    return false;
}

/* " (there are: mlx5_0 mlx5_1)" */
static void list_names(struct verbs_transport *v, struct ibv_device **list, int n, char *out, size_t size)
{
    size_t at = (size_t)snprintf(out, size, "%s", n ? " (there are:" : "");
    for (int i = 0; i < n && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, " %s%s", v->calls->get_device_name(list[i]), i + 1 < n ? "" : ")");
}

status verbs_port_open(struct verbs_transport *v)
{
    char wanted[sizeof v->port.name], why[256] = "", names[160];
    int port, n = 0;
    bool found = false;
    if (!check_options(v))
        return ST_USAGE;
    parse_device(v->options.device, wanted, sizeof wanted, &port);
    struct ibv_device **list = v->calls->get_device_list(&n);
    if (!list || n == 0)
        snprintf(why, sizeof why, "no RDMA device");
    for (int i = 0; list && i < n && !found; i++)
        if (!*wanted || !strcmp(wanted, v->calls->get_device_name(list[i])))
            found = device_will_do(v, list[i], port, why, sizeof why);
    if (!found && !*why) {
        list_names(v, list, n, names, sizeof names);
        snprintf(why, sizeof why, "no RDMA device %s%s", wanted, names);
    }
    if (list)
        v->calls->free_device_list(list);
    if (found)
        return ST_OK;
    verbs_error(v, "%s", why);
    return ST_UNSUPPORTED;
}

void verbs_port_close(struct verbs_transport *v)
{
    if (v->port.context)
        v->calls->close_device(v->port.context);
    v->port.context = NULL;
}
