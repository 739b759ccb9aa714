"""Long work: a job, its stages and progress, the queue, who is watching, the spool."""
