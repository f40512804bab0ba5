"""What a run will take, before anything is paid: seconds, memory, dollars."""
