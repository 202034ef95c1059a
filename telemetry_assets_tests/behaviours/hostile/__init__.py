"""Attacks by an uploader: each upload becomes rows or rejections."""
