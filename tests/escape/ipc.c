// Memory, queues and semaphores that processes find by key or by name.
#define GROUP "ipc"
#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

#include "attack.h"

#define SPACE "own ipc namespace"
#define PLACES "own /dev/shm and /dev/mqueue"

static key_t key(void) { return atoi(env("RED_KEY")); }
ATTACK(shared_memory_by_key, kClean | kBare, SPACE) {
  int id = shmget(key(), 0, 0);
  if (id < 0) return worked("shmget", -1);
  char* at = shmat(id, 0, 0);
  if (at == (void*)-1) return worked("shmat", -1);
  return memcpy(at, "EVIL", 4), VIOLATION;
}
ATTACK(queue_by_key, kClean | kBare, SPACE) {
  int id = msgget(key(), 0);
  if (id < 0) return worked("msgget", -1);
  const struct {
    long type;
    char text[4];
  } message = {1, "EVIL"};
  return worked("msgsnd", msgsnd(id, &message, 4, IPC_NOWAIT));
}
ATTACK(semaphore_by_key, kClean | kBare, SPACE) {
  int id = semget(key(), 0, 0);
  if (id < 0) return worked("semget", -1);
  struct sembuf up = {0, 1, IPC_NOWAIT};
  return worked("semop", semop(id, &up, 1));
}
// Ids are small numbers: what has no key is found by trying.
ATTACK(shared_memory_by_id, kClean, SPACE) {
  if (is_bare()) return SKIP;
  struct shmid_ds info;
  for (int id = 0; id < 4096; ++id)
    if (shmctl(id, SHM_STAT, &info) >= 0 || shmctl(id, IPC_STAT, &info) >= 0)
      return SAY("id %d", id), VIOLATION;
  return HELD;
}
ATTACK(shared_memory_by_name, kClean | kBare, PLACES) {
  int fd = shm_open(env("RED_NAME"), O_RDWR, 0);
  return fd < 0 ? worked("shm_open", -1) : writes(fd);
}
ATTACK(queue_by_name, kClean | kBare, PLACES) {
  mqd_t q = mq_open(env("RED_NAME"), O_WRONLY | O_NONBLOCK);
  if (q == (mqd_t)-1) return worked("mq_open", -1);
  return worked("mq_send", mq_send(q, "EVIL", 4, 0));
}
