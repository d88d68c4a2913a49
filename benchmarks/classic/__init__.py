"""The classic stack that such a grid is usually built of: FastAPI, SQLAlchemy on PostgreSQL, Celery on Redis.

It does the same work as qgjob, as far as that is measured. A submit is validated, its idempotency key is looked up, job
and key are committed, and the broker has acknowledged the task before the answer goes out. A worker commits that the
job began, writes its log, commits the result, and acknowledges the task last.
"""
