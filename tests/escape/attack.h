// The harness that the attacks share: a registry, the words they end with, and the few things most
// of them do.
//
//   #define GROUP "paths"                       // once a file, before this header
//   ATTACK(rename_over, kTainted | kBare, "path changes are judged") {
//     close(creat("scratch/evil", 0644));
//     return worked("rename", rename("scratch/evil", kTarget));
//   }
//
// The third argument names the one defence that the attack meets: without it, it must succeed.
// Life of a run: begin (raise the label if kTainted) → run → a verdict, printed with
// what SAY left. Effects aim at src/, guard/ and at what the environment names; only the runner
// outside is believed for what stayed unchanged. Environment, all from run.py: RED_BARE (no
// certgate: nobody raises a label), RED_LONG (races of 5 s), RED_SLOW
// (a build with sanitizers: 8 times as long for all), RED_LOOP (repeat until killed),
// RED_STAGE (which of two runs), RED_PAGE, RED_SINK ("address:port" when bare) and the names of
// what an agent must not reach.
#pragma once
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { HELD, VIOLATION, SKIP };
enum {
  kClean = 0,
  kTainted = 1,    // the label is raised first
  kBare = 2,       // without certgate it has its effect
  kBareRoot = 4,   // the same, but only for root
  kAlone = 8,      // measures time: nothing else may run beside it
  kTerminal = 16,  // on a terminal
  kTwoRuns = 32,   // stage 1 leaves something that stage 2, another sandbox, takes up
};

struct Attack {
  const char *name, *group, *defence;
  int (*run)(void);
  unsigned flags;
  struct Attack* next;
};
void add_attack(struct Attack* attack);

#define ATTACK(id, bits, defence)                                                      \
  static int attack_##id(void);                                                        \
  static struct Attack entry_##id = {#id, GROUP, defence, attack_##id, bits, 0};       \
  __attribute__((constructor)) static void add_##id(void) { add_attack(&entry_##id); } \
  static int attack_##id(void)

extern char note[256];
extern atomic_int stop;  // threads of a race end when it is set
#define SAY(...) snprintf(note, sizeof note, __VA_ARGS__)
extern const char kTarget[];     // a file that only a clean agent may write
extern const char kForbidden[];  // a program that only a clean agent may run; prints that it ran
enum { kForbiddenRan = 66 };     // its exit status
const char* evidence(void);  // what a listener that must not be reached looks for; else when bare
extern char* const kNone[];

int is_bare(void);
const char* env(const char* name);
double now(void);
double race_seconds(void);
void spin(pthread_t* thread, void* (*f)(void*));  // returns when it runs
void join(pthread_t thread);                      // sets `stop`

// "name:port" of the two servers that the policy knows, or their addresses when bare. A connected
// socket or -1 with errno.
int page(void);
int sink(void);
struct sockaddr_in endpoint(const char* name, const char* port, const char* bare);
int taint(void);  // 0, or -1 when the raise was refused

int writes(int fd);                         // VIOLATION when "EVIL" can be written to it
int worked(const char* what, long result);  // VIOLATION when result >= 0
int closed(const char* what, long result);  // the same, for calls that the filter refuses: EPERM,
                                            // ENOSYS, EAFNOSUPPORT, else SKIP
int sends(int socket, const char* what);    // VIOLATION when "AFTER;" can be sent
int in_child(void (*f)(void));    // exit status of a child that runs it; -1 = ended by a signal
int ran(int status);              // VIOLATION when that was the forbidden program
int outside(int fd);              // whether a descriptor that a race gave us is of a file in src/
int open_within(double seconds);  // HELD when 50 opens take no longer
void own_namespaces(void);        // when bare: so that a live attack harms nobody
int send_fd(int socket, int fd);  // 0 or -1
int receive_fd(int socket);       // a descriptor or -1

// Calls `attempt` while `threads` threads run `flip`. It says: 0 refused, 1 allowed as it should
// be, 2 violation.
int race(int (*attempt)(void), void* (*flip)(void*), int threads);
