/* Says what a fault of memory means. The handler is there while kernels run; cmocka has its own besides. */
#include <signal.h>
#include <string.h>

#include "tests/gpu/shim/shim.h"

static struct sigaction before[2];
static char stack[64 << 10];
static bool watching, own_stack;

static void explain(int number, siginfo_t *info, void *context)
{
    char text[256];
    (void)context;
    if (fiber_overflowed(info->si_addr))
        complain("the thread's stack is full");
    else if (shared_overflowed(info->si_addr))
        complain("%p lies behind the end of dynamic shared memory", info->si_addr);
    else if (arena_explain(info->si_addr, text, sizeof text))
        complain("%s", text);
    else
        complain("%p is no memory of the GPU's", info->si_addr);
    signal(number, SIG_DFL); /* the instruction is tried again, and ends the process */
}

/* A full stack leaves none for the handler. A sanitizer has seen to that already. */
void faults_watch(void)
{
    if (watching)
        return;
    watching = true;
    stack_t now, mine = {.ss_sp = stack, .ss_size = sizeof stack};
    own_stack = sigaltstack(NULL, &now) == 0 && (now.ss_flags & SS_DISABLE) && sigaltstack(&mine, NULL) == 0;
    struct sigaction a = {.sa_sigaction = explain, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    sigaction(SIGSEGV, &a, &before[0]);
    sigaction(SIGBUS, &a, &before[1]);
}

void faults_ignore(void)
{
    if (!watching)
        return;
    watching = false;
    sigaction(SIGSEGV, &before[0], NULL);
    sigaction(SIGBUS, &before[1], NULL);
    if (own_stack)
        sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
}
