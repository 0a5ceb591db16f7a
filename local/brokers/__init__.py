"""Kafka and RabbitMQ of a stack: the servers that the environment names, or some of our own, or none."""
