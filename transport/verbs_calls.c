/* Some of libibverbs' functions are macros or inline: a table needs addresses. */
#include "transport/verbs_calls.h"

#include "base/clock.h"

static int query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr)
{
    return ibv_query_port(context, port, attr);
}

static ssize_t query_gid_table(struct ibv_context *context, struct ibv_gid_entry *entries, size_t max)
{
    return ibv_query_gid_table(context, entries, max, 0);
}

static struct ibv_mr *reg_mr(struct ibv_pd *pd, void *memory, size_t bytes, int access)
{
    return ibv_reg_mr(pd, memory, bytes, access);
}

static struct ibv_cq *create_cq(struct ibv_context *context, int entries, struct ibv_comp_channel *channel)
{
    return ibv_create_cq(context, entries, NULL, channel, 0);
}

static int get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq)
{
    void *cq_context;
    return ibv_get_cq_event(channel, cq, &cq_context);
}

const struct verbs_calls verbs_libibverbs = {
    .get_device_list = ibv_get_device_list,
    .free_device_list = ibv_free_device_list,
    .get_device_name = ibv_get_device_name,
    .open_device = ibv_open_device,
    .close_device = ibv_close_device,
    .query_device = ibv_query_device,
    .query_port = query_port,
    .query_gid_table = query_gid_table,
    .alloc_pd = ibv_alloc_pd,
    .dealloc_pd = ibv_dealloc_pd,
    .reg_mr = reg_mr,
    .dereg_mr = ibv_dereg_mr,
    .create_comp_channel = ibv_create_comp_channel,
    .destroy_comp_channel = ibv_destroy_comp_channel,
    .create_cq = create_cq,
    .destroy_cq = ibv_destroy_cq,
    .get_cq_event = get_cq_event,
    .ack_cq_events = ibv_ack_cq_events,
    .create_qp = ibv_create_qp,
    .modify_qp = ibv_modify_qp,
    .destroy_qp = ibv_destroy_qp,
    .clock_s = clock_s,
};
