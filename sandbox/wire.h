// Wire: messages with descriptors over SOCK_SEQPACKET, without allocation (usable after clone()).
//
//   send_message(socket, &report, sizeof report, fd);          // fd -1: none; flags: MSG_DONTWAIT
//   ssize_t got = receive_message(socket, &report, sizeof report, &fd);   // 0: the peer is gone
//
// Both retry on EINTR and return -errno on failure. A message carries at most one descriptor.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <initializer_list>

#include "sandbox/fd.h"

namespace certgate::sandbox {

int send_message(int socket, const void* data, size_t size, int fd, int flags = 0);

// A truncated message or more than one descriptor is -EPROTO. `fd` is empty when none came.
ssize_t receive_message(int socket, void* data, size_t size, UniqueFd& fd, int flags = 0);

// Closes every descriptor of this process except the given ones (in any order; those below 0 are
// ignored). 0 or -errno.
int close_others(std::initializer_list<int> keep);

}  // namespace certgate::sandbox
