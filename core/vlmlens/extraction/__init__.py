"""A plan's columns: batches through the model, their rows into the store.

May use compose, runs, passes and what is below. How samples are put into batches is in `batching`,
what overlaps is in `pipeline`, how rows are buffered before a write is in `write_buffer`, how long
it will take is in `eta`.
"""
