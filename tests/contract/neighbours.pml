/* vlbr-6.12, two VMs on one pCPU and nobody else: written from the kernel's functions, apart from the Python.
 * Tags: 0 no record, 2 + v a record of VM v. An image is 0 for none, else tag + 1.
 */
#define HOST_ON 0
#define ENTRY 1
#define GUEST 2
#define EXIT 3
#define OFF 0
#define INACTIVE 1
#define ACTIVE 2
#define S2 1
#define S4 2
#define S5 4
#define G1 8
#define C1 16
#define H4 32
#define TAG (thread + 1)
#define V (thread - 1)
#define W (2 - thread)

byte thread = 1, phase, enable, filter, stack, users, running, last_callstack, last, snapshot, seen;
byte event[2], known[2], callstack[2], image[2], saved_filter[2], saved_here[2];
byte bit_[2], cleanup[2], expect[2], been_here = 0;
hidden byte got;

#define RESET filter = 0; stack = 0; last = 0
#define DISABLE enable = (running || !users -> enable : 0)
#define DELETE(v) \
    callstack[v] = (callstack[v] > 0 && last_callstack -> callstack[v] - 1 : callstack[v]); \
    users = (users > 0 -> users - 1 : 0); running = 0
#define ADD(v) \
    users = (users < 2 -> users + 1 : 2); running = 1; last_callstack = 1; \
    event[v] = ACTIVE; known[v] = 1; callstack[v] = (callstack[v] < 2 -> callstack[v] + 1 : 2)
#define LEAVE \
    enable = snapshot; snapshot = 0; phase = HOST_ON; seen = (enable -> H4 : 0)
#define CREATE \
    if :: event[V] == OFF -> DISABLE; if :: users == 0 -> RESET :: else fi; ADD(V) :: else fi
#define JUDGE \
    if :: got != 0 && got != TAG -> seen = seen | S2 :: else fi; \
    if :: expect[V] != 0 && expect[V] != got -> seen = seen | G1; expect[V] = 0 :: else fi

active proctype host() {
    do
    :: d_step { phase == HOST_ON ->
        seen = 0;
        if
        :: cleanup[V] ->
            if
            :: !bit_[V] && event[V] != OFF ->
                if :: event[V] == ACTIVE -> DELETE(V) :: else fi;
                event[V] = OFF;
                if :: !running && callstack[V] -> seen = C1 :: else fi
            :: else
            fi;
            cleanup[V] = 0
        :: else
        fi;
        snapshot = enable; phase = ENTRY }
    :: d_step { phase == ENTRY -> seen = 0; enable = bit_[V]; phase = GUEST }
    :: d_step { phase == GUEST -> enable = snapshot; phase = EXIT; seen = (enable -> H4 : 0) }
    :: d_step { phase == EXIT -> seen = 0; snapshot = 0; phase = HOST_ON }
    :: d_step { phase == HOST_ON ->
        seen = 0;
        DISABLE;
        if
        :: users && known[V] ->
            if
            :: callstack[V] -> image[V] = stack + 1; saved_filter[V] = filter; saved_here[V] = 1; last = thread
            :: else -> image[V] = 0
            fi
        :: else
        fi;
        if :: event[V] == ACTIVE -> DELETE(V); event[V] = INACTIVE :: else fi;
        DISABLE;
        if :: event[W] == INACTIVE -> ADD(W) :: else fi;
        if
        :: users ->
            if
            :: !known[W] || !callstack[W] || !image[W] -> RESET
            :: else ->
                if
                :: last == 3 - thread && saved_here[W] && stack -> skip
                :: else -> filter = saved_filter[W]; stack = image[W] - 1
                fi
            fi;
            if :: known[W] -> image[W] = 0; saved_filter[W] = 0 :: else fi
        :: else
        fi;
        if :: event[W] != OFF -> cleanup[W] = 1 :: else fi;
        been_here = (W == 1 -> 1 : been_here);
        snapshot = 0;
        thread = 3 - thread }
    :: d_step { phase == GUEST && ((bit_[V] && expect[V] != TAG) || (enable && (stack != TAG || event[V] != ACTIVE ||
                (filter != 0 && filter != TAG)))) ->
        seen = 0;
        if :: bit_[V] -> expect[V] = TAG :: else fi;
        if
        :: enable ->
            if :: event[V] != ACTIVE -> seen = seen | S5 :: else fi;
            if :: filter != 0 && filter != TAG -> seen = seen | S4 :: else fi;
            stack = TAG
        :: else
        fi }
    :: d_step { phase == GUEST && event[V] == ACTIVE &&
                ((stack != 0 && stack != TAG) || (expect[V] != 0 && expect[V] != stack)) ->
        seen = 0; got = stack; JUDGE; got = 0 }
    :: d_step { phase == GUEST && event[V] != ACTIVE ->
        LEAVE; CREATE; got = stack; JUDGE; got = 0 }
    :: d_step { phase == GUEST && !bit_[V] -> LEAVE; CREATE; filter = TAG; bit_[V] = 1 }
    :: d_step { phase == GUEST && bit_[V] -> LEAVE; bit_[V] = 0 }
    od
}
