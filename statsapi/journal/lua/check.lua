-- Writes nothing, but is refused wherever a write would be: a replica, no memory, too few replicas, a full disk.
return 1
